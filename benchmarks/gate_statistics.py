"""How often the gate's intervals hold the true drop: 1,000 simulated pairs of models a regime.

A pair of models is drawn from a law with a known drop:

- accuracy: each of `samples` test samples is lost, won, or as right or wrong as before,
  independently; `changed_pct` are lost or won.
- loss: the differences of single samples are a shifted log-normal, skewed as losses are (skewness
  11); the drop is in nats.
- macro recall: no mean over samples; ten classes, the largest ten times the smallest, lose 0 to 8
  points.

`covered_pct` is how often the 95% interval that the gate uses holds the true drop, `bootstrap_pct`
how often the paired percentile bootstrap does, on the same pairs; either has a standard error of
0.7 with 1,000 pairs. `exact_pct` adds up the chances of all outcomes instead of drawing some.
`bound_pct` is how often the true drop keeps within the one-sided 95% bound that `gate.confidence:
0.95` judges. Rows in yellow are outside 93 to 97.

Run: python -m benchmarks.gate_statistics
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks import table
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()  # metrics may be those of Keras

from lrf_core.console import progress  # noqa: E402
from lrf_core.gate.interval import Interval, percentile_bootstrap, score_statistic  # noqa: E402
from lrf_core.gate.metric import Metric  # noqa: E402
from lrf_core.gate.paired import Paired, paired, paired_counts  # noqa: E402

Array = npt.NDArray[Any]

LEVEL = 0.95
LOW, HIGH = 93.0, 97.0
COUNTS = (200, 1_000, 10_000)
# Shares of samples that only one of the models gets right, and drops in points.
CHANGED = (0.01, 0.02, 0.05, 0.15)
DROPS = (0.0, 0.5, 2.0)
LOSS_RISE, LOSS_SIGMA = 0.02, 1.2
CLASSES = 10
MACRO_COUNTS = (200, 1_000)
BOOTSTRAP_DRAWS = 500


@dataclass(frozen=True)
class Regime:
    """A law that pairs of models are drawn from.

    Attributes:
        drop: the true one, a share or in the metric's unit.
        draw: a seed to one pair, compared, and its interval by percentile bootstrap.
        exact: chance that the interval holds the true drop, where it can be added up.
    """

    metric: str
    samples: int
    changed: float | None
    drop: float
    draw: Callable[[int], tuple[Paired, Interval]]
    exact: float | None = None


def main() -> None:
    arguments = parse()
    started = time.monotonic()
    rows = []
    with progress.shown():
        for regime in progress.track(regimes(arguments.most), "Regimes"):
            rows.append(covered(regime, arguments.pairs, arguments.seed))
    facts = {
        "pairs": arguments.pairs,
        "regimes": len(rows),
        "within_93_to_97": sum(not is_outside(row) for row in rows),
        "bootstrap_within_93_to_97": sum(LOW <= row["bootstrap_pct"] <= HIGH for row in rows),
        "seconds": round(time.monotonic() - started),
        "seed": arguments.seed,
        "machine": table.machine(),
    }
    table.show("How often a 95% interval holds the true drop", rows, facts, is_outside)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=1_000, help="of models, for each regime")
    parser.add_argument("--most", type=int, default=max(COUNTS), help="test samples, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "gate_statistics.json")
    return parser.parse_args()


def regimes(most: int) -> list[Regime]:
    """All regimes of at most this many test samples."""
    of_accuracy = [
        accuracy_regime(count, changed, drop / 100.0)
        for count in COUNTS
        for changed in CHANGED
        for drop in DROPS
        if drop / 100.0 <= changed
    ]
    of_loss = [
        Regime("loss", count, None, LOSS_RISE, partial(draw_losses, count)) for count in COUNTS
    ]
    of_recall = [
        Regime(
            "macro recall",
            count,
            None,
            float(lost_of_classes().mean()),
            partial(draw_recalls, count),
        )
        for count in MACRO_COUNTS
    ]
    return [regime for regime in (*of_accuracy, *of_loss, *of_recall) if regime.samples <= most]


def covered(regime: Regime, pairs: int, seed: int) -> table.Row:
    """Simulate pairs of models, and count how often each interval holds the true drop."""
    held, bounded, by_bootstrap, widths = 0, 0, 0, []
    for pair in range(pairs):
        found, bootstrap = regime.draw(seed + pair)
        low, high = found.interval(LEVEL)
        held += low <= regime.drop <= high
        by_bootstrap += bootstrap[0] <= regime.drop <= bootstrap[1]
        bounded += regime.drop <= found.upper_bound(LEVEL)
        widths.append(high - low)
    scale = 1.0 if regime.metric == "loss" else 100.0
    return {
        "metric": regime.metric,
        "samples": regime.samples,
        "changed_pct": None if regime.changed is None else round(100.0 * regime.changed, 1),
        "drop": round(scale * regime.drop, 3),
        "covered_pct": round(100.0 * held / pairs, 1),
        "exact_pct": None if regime.exact is None else round(100.0 * regime.exact, 1),
        "bound_pct": round(100.0 * bounded / pairs, 1),
        "bootstrap_pct": round(100.0 * by_bootstrap / pairs, 1),
        "mean_width": round(scale * float(np.mean(widths)), 3),
    }


def is_outside(row: table.Row) -> bool:
    return not LOW <= row["covered_pct"] <= HIGH


def accuracy_regime(count: int, changed: float, drop: float) -> Regime:
    lost, won = (changed + drop) / 2.0, (changed - drop) / 2.0
    draw = partial(draw_counts, count, lost, won)
    return Regime("accuracy", count, changed, drop, draw, exact_coverage(count, lost, won))


def draw_counts(count: int, lost: float, won: float, seed: int) -> tuple[Paired, Interval]:
    random = np.random.default_rng(seed)
    n_lost, n_won, _ = (int(n) for n in random.multinomial(count, [lost, won, 1.0 - lost - won]))
    found = paired_counts(0.9, 0.9 - (n_lost - n_won) / count, lost=n_lost, won=n_won, count=count)
    return found, percentile_bootstrap(n_lost, n_won, count, LEVEL, seed)


def exact_coverage(count: int, lost: float, won: float) -> float:
    """Chance that the score interval holds the true drop: every outcome that matters, added up.

    The interval holds a drop if and only if the score statistic there is within the quantile.
    """
    quantile = float(stats.norm.ppf((1.0 + LEVEL) / 2.0))
    total = 0.0
    for n_lost in outcomes(count, lost):
        chance = stats.binom.pmf(n_lost, count, lost)
        wins = np.array(outcomes(count - n_lost, won / (1.0 - lost)))
        chances = chance * stats.binom.pmf(wins, count - n_lost, won / (1.0 - lost))
        holds = [abs(score_statistic(n_lost, int(n), count, lost - won)) <= quantile for n in wins]
        total += float(chances @ np.array(holds, dtype=float))
    return total


def outcomes(count: int, share: float) -> range:
    """Numbers of successes within six standard deviations."""
    mean, deviation = count * share, (count * share * (1.0 - share)) ** 0.5
    return range(max(0, int(mean - 6 * deviation)), min(count, int(mean + 6 * deviation) + 6) + 1)


def draw_losses(count: int, seed: int) -> tuple[Paired, Interval]:
    """Losses of single samples before and after; their mean rises by `LOSS_RISE`."""
    random = np.random.default_rng(seed)
    before = random.exponential(size=count)
    mean = float(np.exp(LOSS_SIGMA**2 / 2.0))
    after = before + LOSS_RISE + 0.1 * (random.lognormal(sigma=LOSS_SIGMA, size=count) - mean)
    metric = Metric("loss", False, False, False, lambda labels, answers: answers)
    found = paired(metric, np.zeros(count), before, after, seed)
    drawn = random.integers(0, count, (BOOTSTRAP_DRAWS, count), dtype=np.int32)
    return found, percentiles((after - before)[drawn].mean(axis=1))


def lost_of_classes() -> Array:
    """Shares of right samples that each class loses, the largest class first."""
    return np.linspace(0.0, 0.08, CLASSES)


def draw_recalls(count: int, seed: int) -> tuple[Paired, Interval]:
    """Right and wrong samples of ten classes; each class keeps 1% wins beside what it loses."""
    random = np.random.default_rng(seed)
    sizes = np.geomspace(10.0, 1.0, CLASSES)
    # At least two of each class, as the data of a test set has.
    labels = np.concatenate(
        [
            np.repeat(np.arange(CLASSES), 2),
            random.choice(CLASSES, count - 2 * CLASSES, p=sizes / sizes.sum()),
        ]
    )
    before = random.random(count) < 0.9
    chance_lost = (lost_of_classes() + 0.01) / 0.9
    changed = random.random(count)
    after = np.where(before, changed >= chance_lost[labels], changed < 0.1)
    metric = Metric("macro recall", True, False, False, macro_recall)
    found = paired(metric, labels, before, after, seed)
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        drawn = random.integers(0, count, count)
        one, other = (macro_recall(labels[drawn], right[drawn]) for right in (before, after))
        draws.append(float(one - other))
    return found, percentiles(np.array(draws))


def macro_recall(labels: Array, right: Array) -> Array:
    """Mean of the recalls of the classes that are there."""
    samples = np.bincount(labels, minlength=CLASSES)
    hits = np.bincount(labels, weights=right, minlength=CLASSES)
    there = samples > 0
    return np.asarray(np.mean(hits[there] / samples[there]))


def percentiles(draws: Array) -> Interval:
    low, high = np.quantile(draws, ((1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0))
    return float(low), float(high)


if __name__ == "__main__":
    main()
