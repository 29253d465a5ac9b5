"""Intervals of paired differences: published values, symmetries, and honest coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from lrf_core.gate.interval import (
    accelerated_bootstrap,
    mcnemar_p_value,
    percentile_bootstrap,
    score_interval,
    score_statistic,
    studentized_bootstrap,
)

counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400)).filter(
    lambda found: sum(found) > 0
)
levels = st.floats(0.5, 0.999)


@pytest.mark.parametrize(
    ("lost", "won", "count", "expected"),
    [
        # Airway reactivity (Bentur et al. 2009), the example of Fagerland et al. 2014, table IV.
        (1, 7, 21, (-0.517, -0.026)),
        # By hand: with nothing lost or won the limit is z^2 / (n + z^2), z = 1.959964.
        (0, 0, 100, (-0.036994, 0.036994)),
    ],
)
def test_the_score_interval_has_its_published_values(
    lost: int, won: int, count: int, expected: tuple[float, float]
) -> None:
    assert score_interval(lost, won, count, 0.95) == pytest.approx(expected, abs=5e-4)


@given(counts, levels)
def test_lost_and_won_mirror_each_other(found: tuple[int, int, int], level: float) -> None:
    lost, won, same = found
    count = lost + won + same
    low, high = score_interval(lost, won, count, level)
    assert score_interval(won, lost, count, level) == pytest.approx((-high, -low), abs=1e-9)


@given(counts, levels)
def test_the_difference_lies_within_and_limits_within_one(
    found: tuple[int, int, int], level: float
) -> None:
    lost, won, same = found
    count = lost + won + same
    low, high = score_interval(lost, won, count, level)
    assert -1.0 <= low <= (lost - won) / count <= high <= 1.0
    assert low < high


@given(counts, levels, levels)
def test_more_confidence_is_wider(found: tuple[int, int, int], one: float, other: float) -> None:
    lost, won, same = found
    less, more = sorted((one, other))
    narrow = score_interval(lost, won, lost + won + same, less)
    wide = score_interval(lost, won, lost + won + same, more)
    assert wide[0] <= narrow[0] + 1e-9
    assert narrow[1] <= wide[1] + 1e-9


@given(counts.filter(lambda found: found[0] + found[1] > 0), levels)
def test_four_times_the_samples_are_narrower(found: tuple[int, int, int], level: float) -> None:
    lost, won, same = found
    few = score_interval(lost, won, lost + won + same, level)
    many = score_interval(4 * lost, 4 * won, 4 * (lost + won + same), level)
    assert many[1] - many[0] < few[1] - few[0]


@given(counts, levels)
def test_at_the_limits_the_statistic_is_the_quantile(
    found: tuple[int, int, int], level: float
) -> None:
    lost, won, same = found
    count = lost + won + same
    quantile = stats.norm.ppf((1.0 + level) / 2.0)
    low, high = score_interval(lost, won, count, level)
    if high < 1.0:
        assert score_statistic(lost, won, count, high) == pytest.approx(-quantile, abs=1e-3)
    if low > -1.0:
        assert score_statistic(lost, won, count, low) == pytest.approx(quantile, abs=1e-3)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 200),
    st.floats(-0.9, 0.9).filter(lambda difference: abs(difference) > 1e-3),
)
@settings(max_examples=50)
def test_the_variance_is_that_of_the_likeliest_shares(
    lost: int, won: int, same: int, difference: float
) -> None:
    """The closed form against maximising the multinomial likelihood by search."""
    count = lost + won + same

    def loss(share: float) -> float:
        shares = np.array([share + difference, share, 1.0 - 2.0 * share - difference])
        return -float(np.array([lost, won, same]) @ np.log(np.maximum(shares, 1e-300)))

    bounds = (max(0.0, -difference) + 1e-12, (1.0 - difference) / 2.0 - 1e-12)
    share = optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    ).x
    variance = count * (2.0 * share + difference - difference**2)
    expected = (lost - won - count * difference) / np.sqrt(variance)
    assert score_statistic(lost, won, count, difference) == pytest.approx(expected, rel=1e-3)


def _exact_coverage(count: int, lost: float, won: float, level: float) -> float:
    """Chance that the interval holds the true difference, over every outcome that matters."""
    most = int(count * (lost + won) + 8 * np.sqrt(count * (lost + won)) + 12)
    covered = 0.0
    for n_lost in range(most):
        for n_won in range(most - n_lost):
            outcome = [n_lost, n_won, count - n_lost - n_won]
            chance = stats.multinomial.pmf(outcome, count, [lost, won, 1 - lost - won])
            if chance > 1e-9:
                low, high = score_interval(n_lost, n_won, count, level)
                covered += chance * (low <= lost - won <= high)
    return covered


@pytest.mark.parametrize(
    ("count", "lost", "won"), [(200, 0.02, 0.015), (200, 0.035, 0.015), (1000, 0.0075, 0.0025)]
)
def test_few_changed_samples_are_covered_as_often_as_promised(
    count: int, lost: float, won: float
) -> None:
    assert 0.93 <= _exact_coverage(count, lost, won, 0.95) <= 0.97


@pytest.mark.parametrize(
    ("lost", "won", "expected"),
    # Bentur et al. and Cavo et al., the examples of Fagerland et al. 2013, and no change at all.
    [(1, 7, 0.0391), (0, 0, 1.0), (4, 4, 1.0)],
)
def test_mcnemars_mid_p_value(lost: int, won: int, expected: float) -> None:
    assert mcnemar_p_value(lost, won) == pytest.approx(expected, abs=5e-5)
    assert mcnemar_p_value(won, lost) == mcnemar_p_value(lost, won)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_p_value_is_one(lost: int, won: int) -> None:
    assert 0.0 <= mcnemar_p_value(lost, won) <= 1.0


def test_the_percentile_bootstrap_is_that_of_resampled_pairs() -> None:
    random = np.random.default_rng(1)
    count = 500
    changes = np.repeat([1, -1, 0], [40, 15, count - 55])  # lost, won, unchanged
    drawn = random.choice(changes, size=(4000, count)).mean(axis=1)
    found = percentile_bootstrap(40, 15, count, 0.95, seed=0)
    np.testing.assert_allclose(found, np.percentile(drawn, (2.5, 97.5)), atol=4e-3)
    assert percentile_bootstrap(0, 0, 100, 0.95, seed=0) == (0.0, 0.0)


def test_skewed_differences_are_covered_where_students_interval_is_not() -> None:
    random = np.random.default_rng(0)
    covered, by_student = 0, 0
    for seed in range(300):
        # Of losses: most samples barely change, a few a lot. True mean exp(0.72) - 1 = 1.054.
        values = random.lognormal(sigma=1.2, size=100) - 1.0
        true = np.exp(0.72) - 1.0
        low, high = studentized_bootstrap(values, seed)(0.95)
        covered += low <= true <= high
        half = stats.t.ppf(0.975, 99) * values.std(ddof=1) / 10.0
        by_student += abs(values.mean() - true) <= half
    assert covered > by_student
    assert covered >= 0.91 * 300


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=40), st.floats(0.01, 100))
@settings(max_examples=25)
def test_bootstraps_scale_with_the_unit(values: list[float], unit: float) -> None:
    differences = np.array(values)
    one = studentized_bootstrap(differences, 3)(0.9)
    other = studentized_bootstrap(unit * differences, 3)(0.9)
    np.testing.assert_allclose(np.array(one) * unit, other, rtol=1e-6, atol=1e-6)


def test_differences_that_do_not_differ_give_no_width() -> None:
    assert studentized_bootstrap(np.full(20, 0.5), 0)(0.95) == (0.5, 0.5)
    assert studentized_bootstrap(np.zeros(1), 0)(0.95) == (0.0, 0.0)


def test_the_accelerated_bootstrap_of_a_mean_is_close_to_the_studentized() -> None:
    values = np.random.default_rng(2).normal(0.3, 1.0, 400)
    bca = accelerated_bootstrap(lambda drawn: float(values[drawn].mean()), 400, 0)(0.95)
    np.testing.assert_allclose(bca, studentized_bootstrap(values, 0)(0.95), atol=0.02)
    assert bca[0] < values.mean() < bca[1]


def test_intervals_depend_on_the_seed_alone() -> None:
    values = np.random.default_rng(0).normal(size=50)

    def mean(drawn: np.ndarray) -> float:
        return float(values[drawn].mean())

    assert studentized_bootstrap(values, 7)(0.9) == studentized_bootstrap(values, 7)(0.9)
    assert studentized_bootstrap(values, 7)(0.9) != studentized_bootstrap(values, 8)(0.9)
    assert accelerated_bootstrap(mean, 50, 7)(0.9) == accelerated_bootstrap(mean, 50, 7)(0.9)
    assert percentile_bootstrap(9, 4, 50, 0.9, 7) == percentile_bootstrap(9, 4, 50, 0.9, 7)


def test_a_metric_without_values_on_most_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="no value on most samples"):
        accelerated_bootstrap(lambda drawn: float("nan"), 10, 0)
