"""What a model does and costs: answers, accuracy, size and latency."""

from __future__ import annotations

import logging
import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import ModelMeasures
from lrf_core.data import Split
from lrf_core.errors import DataError, ExportError
from lrf_core.export import LitertModel, to_litert
from lrf_core.models.cost import model_cost
from lrf_core.models.latency import keras_run, litert_run, time_latency
from lrf_core.models.load import weight_bytes
from lrf_core.progress import work

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
            answers.append(np.asarray(model.predict_on_batch(samples)))
            advance(len(samples))
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
    Accuracy is None where the samples have no labels.

    Raises:
        DataError: there are no samples.
    """
    sample = split.read(np.array([0]))
    return ModelMeasures(
        cost=model_cost(model, sample.shape[1:]),
        weight_bytes=weight_bytes(model),
        accuracy=None if split.labels is None else accuracy(model, split, batch_size),
        samples=split.count,
        keras_latency_ms=time_latency(keras_run(model, sample), latency_repeats).median_ms,
        litert_latency_ms=_litert_latency_ms(model, sample, latency_repeats),
    )


def _litert_latency_ms(model: keras.Model, sample: Array, repeats: int) -> float | None:
    try:
        with work("Converting to LiteRT", 1) as advance:
            run = litert_run(LitertModel(to_litert(model)), sample)
            advance(1)
        return time_latency(run, repeats).median_ms
    except ExportError as error:
        _logger.warning("LiteRT latency is not measured: %s", error)
        return None


def _batch_size(split: Split) -> int:
    values = math.prod(split.read(np.array([0])).shape[1:])
    return min(256, max(1, _VALUES_PER_BATCH // max(values, 1)))
