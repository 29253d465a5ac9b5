"""All that is compared between the answers of two models on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import ClassChange, Confusion, MetricChange
from lrf_core.errors import DataError
from lrf_core.gate.classes import (
    are_probabilities,
    as_probabilities,
    class_changes,
    class_titles,
    confusion,
    expected_calibration_error,
)
from lrf_core.gate.interval import mcnemar_p_value, percentile_bootstrap
from lrf_core.gate.metric import Metric, accuracy_metric
from lrf_core.gate.paired import Paired, paired

Array = npt.NDArray[Any]

# Of every interval that is reported; `gate.confidence` is asked for apart.
LEVEL = 0.95


def each_confidence(confidence: float, candidates: int) -> float:
    """That at which each of several candidates is judged, so that it holds for all (Bonferroni)."""
    return 1.0 - (1.0 - confidence) / candidates


@dataclass(frozen=True)
class MeasuredMetric:
    """A metric with what was measured of it."""

    metric: Metric
    paired: Paired

    @property
    def scale(self) -> float:
        """From the metric's own unit to that reported: percent, for accuracies."""
        return 100.0 if self.metric.is_accuracy else 1.0

    @property
    def drop(self) -> float:
        return self.scale * self.paired.difference

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.paired.interval(LEVEL)
        return self.scale * low, self.scale * high

    def change(self, seed: int, confidence: float | None) -> MetricChange:
        """For the verdict, see `change_of`."""
        metric = self.metric
        return change_of(
            self.paired,
            metric.name,
            is_accuracy=metric.is_accuracy,
            higher_is_better=metric.higher_is_better,
            seed=seed,
            confidence=confidence,
        )


def change_of(
    found: Paired,
    name: str,
    *,
    is_accuracy: bool,
    higher_is_better: bool,
    seed: int,
    confidence: float | None,
) -> MetricChange:
    """The change of a metric as verdicts have it.

    Args:
        name: of the metric, as people read it.
        seed: of the bootstrap that stands beside the interval.
        confidence: one-sided, of the bound; None for none.
    """
    scale = 100.0 if is_accuracy else 1.0
    low, high = found.interval(LEVEL)
    change = MetricChange(
        name=name,
        unit="points" if is_accuracy else "",
        higher_is_better=higher_is_better,
        before=scale * found.before,
        after=scale * found.after,
        drop=scale * found.difference,
        interval=(scale * low, scale * high),
        method=found.method,
        bound=None if confidence is None else scale * found.upper_bound(confidence),
    )
    if found.lost is None or found.won is None:
        return change
    low, high = percentile_bootstrap(found.lost, found.won, found.count, LEVEL, seed)
    return change.model_copy(
        update={
            "bootstrap_interval": (scale * low, scale * high),
            "lost": found.lost,
            "won": found.won,
            "mcnemar_p": mcnemar_p_value(found.lost, found.won),
        }
    )


@dataclass(frozen=True)
class Comparison:
    """What changes from one model to the other.

    Attributes:
        accuracy: top-1.
        metric: what the gate asks for; the same where that is top-1 accuracy.
        classes: of every class with samples, the largest drop first.
        agreement: percent of samples given the same class.
        calibration_error: ECE before and after, percent.
        confusion: of the second model.
    """

    accuracy: MeasuredMetric
    metric: MeasuredMetric
    classes: tuple[ClassChange, ...]
    agreement: float
    calibration_error: tuple[float, float]
    confusion: Confusion

    def metrics(self) -> tuple[MeasuredMetric, ...]:
        return (self.accuracy,) if self.metric is self.accuracy else (self.accuracy, self.metric)


def compare(
    before: Array,
    after: Array,
    labels: Array,
    *,
    metric: Metric,
    class_names: Sequence[str],
    seed: int,
) -> Comparison:
    """Compare the finite answers `(count, classes)` of two models.

    Args:
        labels: class ids `(count,)`.
        class_names: one for each class; ids stand in if there are fewer or more.
        seed: of the bootstraps.

    Raises:
        SpecError: the metric fails.
        DataError: it has no finite value on these samples.
    """
    # Of the first model's answers alone, so that both are read in the same way.
    are_given = are_probabilities(before)
    probabilities = tuple(as_probabilities(answers, are_given) for answers in (before, after))
    top_1 = accuracy_metric()
    accuracy = MeasuredMetric(top_1, paired(top_1, labels, before, after, seed))
    asked = accuracy
    if metric.name != top_1.name:
        given = probabilities if metric.of_probabilities else (before, after)
        asked = MeasuredMetric(metric, _finite(metric, labels, *given, seed=seed))
    names = class_titles(class_names, before.shape[-1])
    first, second = before.argmax(axis=-1), after.argmax(axis=-1)
    errors = tuple(
        expected_calibration_error(given == labels, values.max(axis=-1))
        for given, values in zip((first, second), probabilities, strict=True)
    )
    return Comparison(
        accuracy=accuracy,
        metric=asked,
        classes=class_changes(labels, first, second, names),
        agreement=100.0 * float(np.mean(first == second)),
        calibration_error=(errors[0], errors[1]),
        confusion=confusion(labels, second, names),
    )


def _finite(metric: Metric, labels: Array, before: Array, after: Array, *, seed: int) -> Paired:
    try:
        found = paired(metric, labels, before, after, seed)
    except ValueError as error:
        raise DataError(f"gate.metric {metric.name}: {error}; give more samples") from None
    if not np.isfinite([found.before, found.after]).all():
        raise DataError(
            f"gate.metric {metric.name} is {found.before:g} before and {found.after:g} after on "
            "these samples; give a metric that is finite on them"
        )
    return found
