"""What the gate compares two models by: accuracy, top-k accuracy, a Keras metric, or a function."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.errors import SpecError
from lrf_core.named_function import (
    PATTERN,
    function_named,
    summarize_error,
    working_directory_importable,
)
from lrf_core.spec import GateSpec

Array = npt.NDArray[Any]

_TOP_K = re.compile(r"top_?([1-9]\d*)")
_DIRECTION = "set gate.metric_direction to higher or lower: which of them is better"


@dataclass(frozen=True)
class Metric:
    """A number that says how well a model answers.

    Attributes:
        name: as people read it.
        higher_is_better: which of two values is the better one.
        is_accuracy: whether it counts samples answered rightly: given in percent, drops in points.
        of_probabilities: whether it takes probabilities, not the answers as they are.
        evaluate: class ids `(n,)` and answers `(n, classes)` to one value for each sample, `(n,)`,
            whose mean is the metric; or, for what is no mean, to the value of the whole set, `()`.
    """

    name: str
    higher_is_better: bool
    is_accuracy: bool
    of_probabilities: bool
    evaluate: Callable[[Array, Array], Array]


def metric_of(gate: GateSpec, classes: int) -> Metric:
    """The metric that `gate.metric` names.

    Args:
        classes: width of the answers.

    Raises:
        SpecError: no such metric or function, or nobody said which direction is better.
    """
    name = gate.metric
    if gate.judges_accuracy():
        k = accuracy_rank(name)
        if k >= classes > 1:
            raise SpecError(
                f"gate.metric {name}: a model with {classes} outputs is always right among its "
                f"first {k}; give a k below {classes}"
            )
        return accuracy_metric(k)
    if re.fullmatch(PATTERN, name):
        return _metric_of_function(name, gate)
    return _metric_of_keras(name, gate, classes)


def accuracy_rank(name: str) -> int:
    """The k of `top_k`; 1 for `accuracy`."""
    found = _TOP_K.fullmatch(name)
    return int(found[1]) if found else 1


def metric_title(name: str) -> str:
    """The name of a metric as people read it, from that in the spec."""
    if not (name == "accuracy" or _TOP_K.fullmatch(name)):
        return name
    k = accuracy_rank(name)
    return "accuracy" if k == 1 else f"top-{k} accuracy"


def accuracy_metric(k: int = 1) -> Metric:
    """Share of samples with the label among the k largest answers."""
    return Metric(
        name=metric_title(f"top_{k}"),
        higher_is_better=True,
        is_accuracy=True,
        of_probabilities=False,
        evaluate=lambda labels, answers: is_among_largest(labels, answers, k).astype(float),
    )


def is_among_largest(labels: Array, answers: Array, k: int) -> Array:
    """Whether the label's answer is among the k largest, `(n,)` bool; NaN answers are wrong.

    Of equal answers the one of the lower class counts as larger, as argmax has it.

    Args:
        labels: class ids `(n,)`.
        answers: `(n, classes)`.
    """
    own = np.take_along_axis(answers, labels[:, None], axis=-1)
    earlier = np.arange(answers.shape[-1]) < labels[:, None]
    ahead = np.sum((answers > own) | ((answers == own) & earlier), axis=-1)
    right: Array = np.isfinite(answers).all(axis=-1) & (ahead < k)
    return right


def _metric_of_function(source: str, gate: GateSpec) -> Metric:
    with working_directory_importable():
        function = function_named(source, SpecError)
    if gate.metric_direction is None:
        raise SpecError(f"gate.metric {source}: {_DIRECTION}")

    def evaluate(labels: Array, answers: Array) -> Array:
        try:
            value = np.asarray(function(labels, answers), dtype=float)
        except Exception as error:
            raise SpecError(f"gate.metric {source} failed: {summarize_error(error)}") from error
        return _checked(value, len(labels), source)

    return Metric(source, gate.metric_direction == "higher", False, False, evaluate)


def _metric_of_keras(name: str, gate: GateSpec, classes: int) -> Metric:
    try:
        metric = keras.metrics.get(name)
    except (TypeError, ValueError):
        metric = None
    if not isinstance(metric, keras.metrics.Metric):
        raise SpecError(
            f"gate.metric {name}: Keras has no metric that this name alone makes; give accuracy, "
            "top_5, the name of a Keras metric as compile() takes it, or module:function"
        )
    direction = gate.metric_direction or _KNOWN_DIRECTIONS.get(getattr(metric, "_direction", None))
    if direction is None:
        raise SpecError(f"gate.metric {name}: Keras does not tell; {_DIRECTION}")
    takes_ids = type(metric).__name__.startswith("Sparse")

    def evaluate(labels: Array, answers: Array) -> Array:
        wanted = labels if takes_ids else np.eye(classes, dtype=np.float32)[labels]
        try:
            value = _value_in_keras(metric, wanted, answers.astype(np.float32))
        except Exception as error:  # of whichever backend
            raise SpecError(f"gate.metric {name} failed: {summarize_error(error)}") from error
        return _checked(value, len(labels), name)

    return Metric(name, direction == "higher", False, True, evaluate)


_KNOWN_DIRECTIONS: dict[Any, Any] = {"up": "higher", "down": "lower"}


def _value_in_keras(metric: keras.metrics.Metric, labels: Array, answers: Array) -> Array:
    """One value for each sample where the metric is their mean, else that of all samples."""
    if isinstance(metric, keras.metrics.MeanMetricWrapper):
        # Keras keeps it private; without it there is one number, and only slower intervals of it.
        values = metric._fn(labels, answers, **metric._fn_kwargs)
        found = np.asarray(keras.ops.convert_to_numpy(values), dtype=float)
        if found.shape == (len(labels),):
            return found
    metric.reset_state()
    metric.update_state(labels, answers)
    return np.asarray(keras.ops.convert_to_numpy(metric.result()), dtype=float)


def _checked(value: Array, count: int, name: str) -> Array:
    if value.shape not in ((), (count,)):
        raise SpecError(
            f"gate.metric {name} gives {value.shape} values for {count} samples; it must give one "
            "number, or one for each sample"
        )
    return value
