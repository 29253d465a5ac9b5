"""A difference between two models on the same samples, with intervals of any level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.gate.interval import (
    Interval,
    accelerated_bootstrap,
    score_interval,
    studentized_bootstrap,
)
from lrf_core.gate.metric import Metric

Array = npt.NDArray[Any]

# More samples than anybody labels.
_MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class Paired:
    """How much worse the second model is, in the metric's own unit (a share for accuracies).

    Attributes:
        before, after: the metric of either model.
        difference: positive where the second is worse.
        count: samples.
        method: of the interval, as people read it.
        interval: level to both limits of `difference`.
        lost, won: samples that only the first, or only the second, gets right; None if the
            metric is not 0 or 1 for each sample.
    """

    before: float
    after: float
    difference: float
    count: int
    method: str
    interval: Callable[[float], Interval]
    lost: int | None = None
    won: int | None = None

    def upper_bound(self, confidence: float) -> float:
        """What the true difference does not exceed, with this one-sided confidence (0.5 to 1)."""
        return self.interval(2.0 * confidence - 1.0)[1]

    def samples_needed(self, limit: float, confidence: float) -> int | None:
        """Samples for an upper bound within the limit, if shares of lost and won stay as they are.

        None if the difference itself is over the limit, where no number of samples would do, or
        without numbers of lost and won samples.
        """
        if self.difference >= limit or self.lost is None or self.won is None:
            return None
        lost, won = self.lost / self.count, self.won / self.count

        def is_enough(count: int) -> bool:
            level = 2.0 * confidence - 1.0
            return score_interval(lost * count, won * count, count, level)[1] <= limit

        return _smallest(is_enough)


def paired(metric: Metric, labels: Array, before: Array, after: Array, seed: int) -> Paired:
    """Compare two models' answers `(count, classes)` by a metric, on the same samples.

    Args:
        labels: class ids `(count,)`.
        seed: of the bootstraps.

    Raises:
        SpecError: the metric fails, or has no finite value.
        ValueError: it has none on most of the samples drawn.
    """
    first, second = metric.evaluate(labels, before), metric.evaluate(labels, after)
    means = float(first.mean()), float(second.mean())
    sign = 1.0 if metric.higher_is_better else -1.0
    difference, count = sign * (means[0] - means[1]), len(labels)
    if not first.shape:

        def difference_of(drawn: Array) -> float:
            values = (metric.evaluate(labels[drawn], a[drawn]) for a in (before, after))
            one, other = (float(value.mean()) for value in values)
            return sign * (one - other)

        interval = accelerated_bootstrap(difference_of, count, seed)
        return Paired(*means, difference, count, "BCa bootstrap", interval)
    worse = sign * (first - second)
    if np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all():
        return paired_counts(
            *means, lost=int(np.sum(worse > 0)), won=int(np.sum(worse < 0)), count=count
        )
    interval = studentized_bootstrap(worse, seed)
    return Paired(*means, difference, count, "studentized bootstrap", interval)


def paired_counts(before: float, after: float, *, lost: int, won: int, count: int) -> Paired:
    """The comparison that numbers of lost and won samples come to."""
    return Paired(
        before,
        after,
        (lost - won) / count,
        count,
        "Tango score",
        lambda level: score_interval(lost, won, count, level),
        lost,
        won,
    )


def _smallest(is_enough: Callable[[int], bool]) -> int | None:
    """The smallest count that is enough, where all above it are too."""
    if not is_enough(_MOST_SAMPLES):
        return None
    too_few, enough = 0, _MOST_SAMPLES
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(middle):
            enough = middle
        else:
            too_few = middle
    return enough
