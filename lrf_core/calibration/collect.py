"""One pass over the calibration samples: second moments, sampled rows and gradient moments."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lrf_core.calibration.fisher import Likelihood, likelihoods_of
from lrf_core.calibration.patches import channels_last, patch_table, positions_to_sum
from lrf_core.errors import DataError
from lrf_core.methods import Moments
from lrf_core.models.precision import in_float32
from lrf_core.models.trace import walk, watching
from lrf_core.progress import work
from lrf_core.structure import Samples, chosen, sample_count

# Above this width the second moment is kept as its diagonal: 8192^2 doubles are half a gibibyte.
MAX_FULL_WIDTH = 8192
# Rows kept per layer, for similarities of feature maps.
KEPT_ROWS = 1024

_logger = logging.getLogger("lrf")


@dataclass
class _Sums:
    """Running sums of one layer, in float64."""

    second: Any = 0.0
    gradient: Any = 0.0
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    rows_seen: int = 0


def collect_moments(
    model: keras.Model,
    layers: Mapping[str, keras.Layer],
    samples: Samples,
    *,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Moments]:
    """Statistics of each layer's input and of the loss gradient at its output.

    The gradient is that of the log-likelihood of labels drawn from the model's own answers (see
    `fisher`), so its second moment is the Fisher information at the layer's output (Martens and
    Grosse 2015, arXiv 1503.05671); no label is needed. A model of lower precision is run in
    float32.

    Args:
        layers: path to convolution or dense layer of `model`.
        samples: `(samples, *input_shape)`; a list or dict of arrays for several inputs.

    Returns:
        Moments for each path.

    Raises:
        DataError: a layer's input is not finite on some sample.
    """
    # A generator per layer: what is sampled of one does not depend on which others are asked for.
    rngs = {path: np.random.default_rng([seed, zlib.crc32(path.encode())]) for path in layers}
    running = in_float32(model)
    if running is not model:
        copies = dict(walk(running))
        layers = {path: copies[path] for path in layers}
    count = sample_count(samples)
    collector = _Collector(running, layers, count, seed)
    sums = {path: _Sums() for path in layers}
    with work("Calibrating", count) as advance:
        for start in range(0, count, batch_size):
            batch = chosen(samples, slice(start, start + batch_size))
            size = sample_count(batch)
            for path, update in collector.batch(batch, rngs):
                _add(sums[path], update, rngs[path], KEPT_ROWS * size / count)
            advance(size)
    return {path: _finish(path, total, count) for path, total in sums.items()}


@dataclass(frozen=True)
class _Update:
    second: NDArray[np.float64]
    gradient: NDArray[np.float64] | None
    rows: NDArray[np.float32]
    weight: float
    rows_seen: int


def _add(total: _Sums, update: _Update, rng: np.random.Generator, keep: float) -> None:
    # Positions were sampled: the sum stands for all of them.
    total.second = total.second + update.second * update.weight
    total.rows_seen += update.rows_seen
    if update.gradient is None:
        total.gradient = None
    elif total.gradient is not None:
        total.gradient = total.gradient + update.gradient
    count = min(max(math.ceil(keep), 1), len(update.rows))
    total.rows.append(update.rows[rng.choice(len(update.rows), count, replace=False)])


def _finish(path: str, total: _Sums, samples: int) -> Moments:
    if not np.isfinite(total.second).all():
        raise DataError(
            f"the input of layer '{path}' is not finite on the calibration samples; check the "
            "data's scale and the model's weights"
        )
    gradient = total.gradient
    if gradient is not None and not np.isfinite(gradient).all():
        _logger.warning("layer '%s': gradient is not finite, sensitivity is off", path)
        gradient = None
    return Moments(
        second=total.second / samples,
        gradient=None if gradient is None else gradient / samples,
        rows=np.concatenate(total.rows)[:KEPT_ROWS],
        rows_seen=total.rows_seen,
    )


class _Collector:
    """Runs batches through the model and reduces what its layers see."""

    def __init__(
        self, model: keras.Model, layers: Mapping[str, keras.Layer], samples: int, seed: int
    ) -> None:
        self._model = model
        self._layers = layers
        self._samples = samples
        self._labels = np.random.default_rng(seed)
        self._likelihoods: list[Likelihood] = []
        self._step = tf.function(self._forward_and_gradient, autograph=False, reduce_retracing=True)

    def batch(
        self, batch: Samples, rngs: Mapping[str, np.random.Generator]
    ) -> Iterator[tuple[str, _Update]]:
        if not self._likelihoods:
            self._likelihoods = likelihoods_of(self._model, batch)
        draw = self._labels.integers(2**31, size=2, dtype=np.int32)
        tensors_in = keras.tree.map_structure(tf.convert_to_tensor, batch)
        inputs, gradients = self._step(tensors_in, tf.constant(draw))
        for path, tensors in inputs.items():
            for source, gradient in zip(tensors, gradients[path], strict=True):
                yield path, self._reduce(path, source, gradient, rngs[path])

    def _forward_and_gradient(self, batch: Samples, draw: tf.Tensor) -> tuple[Any, Any]:
        inputs: dict[str, list[tf.Tensor]] = {path: [] for path in self._layers}
        outputs: dict[str, list[tf.Tensor]] = {path: [] for path in self._layers}
        with tf.GradientTape() as tape:

            def note(path: str, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
                tape.watch(target)  # also where the layer is frozen
                inputs[path].append(source)
                outputs[path].append(target)
                return target

            with watching(self._layers, note):
                answers = keras.tree.flatten(self._model(batch, training=False))
            loss = tf.add_n(
                [
                    likelihood.loss(answer, draw + index)
                    for index, (answer, likelihood) in enumerate(
                        zip(answers, self._likelihoods, strict=True)
                    )
                ]
            )
        return inputs, tape.gradient(loss, outputs)

    def _reduce(
        self, path: str, source: tf.Tensor, gradient: tf.Tensor | None, rng: np.random.Generator
    ) -> _Update:
        layer = self._layers[path]
        table = patch_table(layer, source)
        count = positions_to_sum(layer, self._samples)
        rows = table.sampled(count, rng).rows(layer, source)
        wide = rows.shape[1] > MAX_FULL_WIDTH
        second = tf.reduce_sum(rows * rows, axis=0) if wide else tf.matmul(rows, rows, True)
        moment = None
        if gradient is not None:
            flat = tf.cast(channels_last(layer, gradient), tf.float32)
            flat = tf.reshape(flat, [-1, layer.kernel.shape[-1]])
            moment = tf.matmul(flat, flat, True).numpy().astype(np.float64)
        seen = int(rows.shape[0])
        return _Update(
            second=second.numpy().astype(np.float64),
            gradient=moment,
            rows=rows.numpy(),
            weight=table.positions * int(source.shape[0]) / seen,
            rows_seen=seen,
        )
