"""What a model does and costs: answers, accuracy, size and latency."""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import ModelMeasures
from lrf_core.console.progress import work
from lrf_core.data import Split
from lrf_core.errors import DataError, ExportError
from lrf_core.measurement.served import ServedModel
from lrf_core.measurement.timing import keras_run, litert_run, time_latency
from lrf_core.models.cost import model_cost
from lrf_core.models.load import weight_bytes
from lrf_core.models.structure import Samples, judged, sample_count, sample_shape

_logger = logging.getLogger("lrf")

Array = npt.NDArray[Any]

# Values of input held at once by default, which keeps the feature maps of large images in memory.
_VALUES_PER_BATCH = 2**23


def predict(
    model: keras.Model,
    split: Split,
    batch_size: int | None = None,
    description: str = "Predicting",
) -> Array:
    """The model's answers `(count, *output_shape)` for every sample, in order.

    Of a model with several outputs, the answers of the one that labels belong to.

    Args:
        batch_size: default: as many as fit a few hundred megabytes, at most 256.

    Raises:
        DataError: there are no samples.
    """
    if not split.count:
        raise DataError("there are no samples to predict on; give at least one")
    answers = []
    with work(description, split.count) as advance:
        for samples, _ in split.batches(batch_size or _batch_size(split)):
            answers.append(judged(model, model.predict_on_batch(samples)))
            advance(sample_count(samples))
    return np.concatenate(answers)


def accuracy(
    model: keras.Model,
    split: Split,
    batch_size: int | None = None,
    description: str = "Measuring accuracy",
) -> float:
    """Percent of samples whose largest answer is at the label.

    Raises:
        DataError: no samples, or no labels.
    """
    return share_right(is_right(predict(model, split, batch_size, description), split))


def is_right(answers: Array, split: Split) -> Array:
    """Whether the largest answer is at the label, `(count,)` bool; NaN answers are wrong.

    Args:
        answers: `(count, classes)`.

    Raises:
        DataError: the samples have no labels.
    """
    if split.labels is None:
        raise DataError("the samples have no labels, so that accuracy cannot be measured")
    finite = np.isfinite(answers).all(axis=-1)
    right: Array = finite & (answers.argmax(axis=-1) == split.labels)
    return right


def share_right(right: Array) -> float:
    """Percent of `(count,)` bool that is True."""
    return 100.0 * float(np.mean(right))


def measure(
    model: keras.Model,
    split: Split,
    *,
    batch_size: int | None = None,
    latency_repeats: int = 30,
) -> ModelMeasures:
    """Accuracy on all samples, cost, weight size, and latency of one sample.

    LiteRT latency is None, with a warning in the log, where LiteRT cannot run the model.
    Accuracy is None if the samples have no labels.

    Raises:
        DataError: there are no samples.
    """
    sample = split.read(np.array([0]))
    return ModelMeasures(
        cost=model_cost(model, sample_shape(sample)),
        weight_bytes=weight_bytes(model),
        accuracy=None if split.labels is None else accuracy(model, split, batch_size),
        samples=split.count,
        keras_latency_ms=time_latency(keras_run(model, sample), latency_repeats).median_ms,
        litert_latency_ms=_litert_latency_ms(model, sample, latency_repeats),
    )


def _litert_latency_ms(model: keras.Model, sample: Samples, repeats: int) -> float | None:
    try:
        with work("Converting to LiteRT", 1) as advance:
            run = litert_run(ServedModel(model), sample)
            advance(1)
        return time_latency(run, repeats).median_ms
    except ExportError as error:
        _logger.warning("LiteRT latency is not measured: %s", error)
        return None


def _batch_size(split: Split) -> int:
    sample = keras.tree.flatten(split.read(np.array([0])))
    values = sum(int(part[0].size) for part in sample)
    return min(256, max(1, _VALUES_PER_BATCH // max(values, 1)))
