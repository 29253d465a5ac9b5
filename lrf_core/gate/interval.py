"""Confidence intervals of paired differences, and McNemar's test: arithmetic on counts and arrays.

A difference is "first minus second" throughout: positive where the second model is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from lrf_core.console.progress import track

Array = npt.NDArray[Any]
Interval = tuple[float, float]

# Draws of the bootstraps. The limits of a 95% interval rest on 2.5% of them.
DRAWS = 2000
# Values that are resampled at once, which bounds the memory (about 100 MB of indices and values).
_VALUES_AT_ONCE = 4_000_000
# Groups that the jackknife of a metric of the whole set leaves out, one after the other.
_JACKKNIFE_GROUPS = 100


def score_interval(lost: float, won: float, count: float, level: float) -> Interval:
    """Tango's score interval of the difference of two paired proportions.

    The limits are the differences at which the score statistic is the normal quantile. Unlike Wald
    and bootstrap intervals it keeps its coverage where few pairs differ, and has a width if none
    does.

    Args:
        lost: pairs of which only the first is a success; need not be whole, for planning.
        won: pairs of which only the second is.
        count: all pairs.
        level: e.g. 0.95.

    Returns:
        Both limits as shares, within [-1, 1].

    References:
        Tango, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design", Statistics in Medicine 17 (1998).
        Fagerland, Lydersen, Laake, "Recommended tests and confidence intervals for paired binomial
        proportions", Statistics in Medicine 33 (2014).
    """
    quantile = float(stats.norm.ppf((1.0 + level) / 2.0))
    return (
        -_upper_score_limit(won, lost, count, quantile),
        _upper_score_limit(lost, won, count, quantile),
    )


def score_statistic(lost: float, won: float, count: float, difference: float) -> float:
    """Tango's statistic of the hypothesis that the proportions differ by `difference`.

    Standard normal under the hypothesis; 0 if the observed difference is the hypothesis and
    nothing varies. See `score_interval` for arguments and source.
    """
    distance = lost - won - count * difference
    if distance == 0.0:
        return 0.0
    share_won = _constrained_share_won(lost, won, count, difference)
    variance = count * (2.0 * share_won + difference * (1.0 - difference))
    if variance <= 0.0:
        return float(np.copysign(np.inf, distance))
    return float(distance / np.sqrt(variance))


def mcnemar_p_value(lost: int, won: int) -> float:
    """Two-sided exact mid-p value of McNemar's test that as many pairs are lost as won.

    References:
        McNemar, Psychometrika 12 (1947). Fagerland, Lydersen, Laake, "The McNemar test for binary
        matched-pairs data: mid-p and asymptotic are better than exact conditional", BMC Medical
        Research Methodology 13 (2013).
    """
    changed, fewer = lost + won, min(lost, won)
    tail = stats.binom.cdf(fewer, changed, 0.5) - 0.5 * stats.binom.pmf(fewer, changed, 0.5)
    return float(min(1.0, 2.0 * tail))


def percentile_bootstrap(lost: int, won: int, count: int, level: float, seed: int) -> Interval:
    """Paired percentile bootstrap of a difference of proportions: both limits as shares.

    Drawing `count` pairs with replacement gives multinomial numbers of lost and won pairs, so these
    are drawn directly. With nothing lost or won it has no width, and with few it covers too seldom;
    it is reported beside `score_interval`, and decides nothing.

    References:
        Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    shares = np.array([lost, won, count - lost - won]) / count
    draws = np.random.default_rng(seed).multinomial(count, shares, size=DRAWS)
    return _percentiles((draws[:, 0] - draws[:, 1]) / count, level)


def studentized_bootstrap(differences: Array, seed: int) -> Callable[[float], Interval]:
    """Bootstrap-t interval of the mean of paired differences, as a function of the level.

    Each draw gives a t statistic of its own; their quantiles take the place of Student's, so that
    skewed differences, as losses have, are covered on both sides. If no two differences
    differ, the interval has no width.

    Args:
        differences: `(count,)`, of values that are not all 0 or 1.

    References:
        Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), section 12.5.
    """
    mean, count = float(differences.mean()), len(differences)
    spread = float(differences.std(ddof=1)) if count > 1 else 0.0
    # Equal numbers differ from their mean by its rounding.
    if spread <= 1e-12 * float(np.abs(differences).max()):
        return lambda level: (mean, mean)
    error = spread / count**0.5
    statistics = _t_statistics((differences - mean) / spread, seed)

    def interval(level: float) -> Interval:
        low, high = _percentiles(statistics, level)
        # The high quantile of t makes the low limit, and the other way round.
        return mean - high * error, mean - low * error

    return interval


def accelerated_bootstrap(
    difference_of: Callable[[Array], float], count: int, seed: int
) -> Callable[[float], Interval]:
    """BCa bootstrap interval of any difference, as a function of the level.

    For metrics of a whole set, as F1 or AUC, that are no mean over samples. The acceleration comes
    from a jackknife over at most 100 groups of samples.

    Args:
        difference_of: indices of pairs `(n,)` to the difference; NaN where it has none there.
        count: pairs to draw from.

    Raises:
        ValueError: most draws have no difference.

    References:
        Efron, "Better Bootstrap Confidence Intervals", JASA 82 (1987).
    """
    random = np.random.default_rng(seed)
    # Each evaluates the metric, which may take its time.
    drawing = track(range(DRAWS // 2), "Bootstrap of the metric")
    draws = np.array([difference_of(random.integers(0, count, count)) for _ in drawing])
    draws = draws[np.isfinite(draws)]
    if len(draws) < DRAWS // 4:
        raise ValueError("the metric has no value on most samples drawn with replacement")
    center = difference_of(np.arange(count))
    # Half of what equals the estimate counts as below it: metrics of few samples have many ties.
    below = np.mean(draws < center) + 0.5 * np.mean(draws == center)
    bias = stats.norm.ppf(np.clip(below, 0.5 / len(draws), 1.0 - 0.5 / len(draws)))
    acceleration = _acceleration(difference_of, count, random)

    def interval(level: float) -> Interval:
        shifted = bias + stats.norm.ppf([(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        shares = stats.norm.cdf(bias + shifted / (1.0 - acceleration * shifted))
        low, high = np.quantile(draws, shares)
        return min(float(low), center), max(float(high), center)

    return interval


def _upper_score_limit(lost: float, won: float, count: float, quantile: float) -> float:
    observed = (lost - won) / count

    def excess(difference: float) -> float:
        return score_statistic(lost, won, count, difference) + quantile

    # Near 1 the statistic falls without bound, unless every pair is lost already.
    highest = 1.0 - 1e-12
    if observed >= highest or excess(highest) >= 0.0:
        return 1.0
    return float(optimize.brentq(excess, observed, highest, xtol=1e-12))


def _constrained_share_won(lost: float, won: float, count: float, difference: float) -> float:
    """Maximum likelihood share of won pairs where lost minus won is `difference`."""
    a = 2.0 * count
    b = -lost - won + (2.0 * count - lost + won) * difference
    c = -won * difference * (1.0 - difference)
    root = float(np.sqrt(max(b * b - 4.0 * a * c, 0.0)))
    # Two forms of the same root: subtracting nearly equal numbers loses all digits.
    share = (root - b) / (2.0 * a) if b <= 0.0 else -2.0 * c / (b + root)
    return max(share, 0.0, -difference)


def _t_statistics(centered: Array, seed: int) -> Array:
    """t statistics `(DRAWS,)` of samples drawn with replacement.

    Args:
        centered: `(count,)`, of mean 0 and variance 1.
    """
    random, count = np.random.default_rng(seed), len(centered)
    squares = centered * centered
    found = []
    at_once = max(1, _VALUES_AT_ONCE // count)
    for start in range(0, DRAWS, at_once):
        drawn = random.integers(0, count, (min(at_once, DRAWS - start), count))
        means = centered[drawn].mean(axis=1)
        variances = squares[drawn].mean(axis=1) - means * means
        # A draw of equal values has no error to measure its mean by, and says nothing.
        usable = variances > 1e-12
        found.append(means[usable] / np.sqrt(variances[usable] / (count - 1)))
    return np.concatenate(found)


def _acceleration(
    difference_of: Callable[[Array], float], count: int, random: np.random.Generator
) -> float:
    groups = np.array_split(random.permutation(count), min(count, _JACKKNIFE_GROUPS))
    left = np.array([difference_of(np.setdiff1d(np.arange(count), group)) for group in groups])
    left = left[np.isfinite(left)]
    if not len(left):
        return 0.0
    apart = left.mean() - left
    spread = float(np.sum(apart**2)) ** 1.5
    return float(np.sum(apart**3)) / (6.0 * spread) if spread > 0.0 else 0.0


def _percentiles(values: Array, level: float) -> Interval:
    low, high = np.quantile(values, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return float(low), float(high)
