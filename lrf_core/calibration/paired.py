"""What layers see in a compressed model, beside what they answer in the original."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lrf_core.calibration.lazy_tensorflow import tf
from lrf_core.calibration.memory import DEFAULT_MEMORY_BYTES, batch_size_for
from lrf_core.calibration.patches import gathered_rows, patch_table, positions_to_sum
from lrf_core.calibration.positions import drawn
from lrf_core.calibration.tap import survey
from lrf_core.methods.base import Matrix
from lrf_core.models.precision import in_float32
from lrf_core.models.structure import Samples, chosen, sample_count
from lrf_core.models.trace import walk, watching


@dataclass(frozen=True)
class PairedMoments:
    """Moments of a layer's input rows `x` in the compressed model and the original's output `y`.

    Both are summed over positions, mean over samples; bias and activation are not part of `y`.

    Attributes:
        second: of `x` with itself, `(n, n)`.
        cross: of `x` with `y`, `(n, c)`.
        rows_seen: how many rows were summed.
    """

    second: Matrix
    cross: Matrix
    rows_seen: int


class PairedCalibration:
    """Runs the original and a compressed copy side by side, up to the layer that is wanted.

    Args:
        layers: path to convolution or dense layer of `model`.
        samples: `(samples, *input_shape)`; a list or dict of arrays for several inputs.
        batch_size: by default as many as have feature maps that fit.
        memory_bytes: what they have to fit, see `batch_size_for`.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Mapping[str, keras.Layer],
        samples: Samples,
        *,
        batch_size: int | None,
        seed: int,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._layers = layers
        self._count = sample_count(samples)
        self._seed = seed
        self._original = in_float32(model)
        # One sample, or as many as the model insists on.
        least = self._original.inputs[0].shape[0] or 1
        self._watched = {path: layer for path, layer in walk(self._original) if path in layers}
        found = survey(self._original, self._watched, chosen(samples, slice(least)))
        self._calls = {path: len(calls.inputs) for path, calls in found.calls.items()}
        batch_size = batch_size or batch_size_for(found.bytes_per_sample, memory_bytes)
        self._batches = [
            chosen(samples, slice(start, start + batch_size))
            for start in range(0, self._count, batch_size)
        ]

    def moments(self, copy: keras.Model, path: str) -> PairedMoments:
        """Of one layer, with what it sees in `copy`, a model of the same layers."""
        layer, calls = self._layers[path], self._calls[path]
        kernel = tf.reshape(tf.cast(layer.kernel, tf.float32), [-1, layer.kernel.shape[-1]])
        per_sample = positions_to_sum(layer, self._count)
        # The same positions whenever this layer is looked at.
        rng = np.random.default_rng([self._seed, zlib.crc32(path.encode())])
        second: Any = 0.0
        cross: Any = 0.0
        seen = 0
        copied = dict(walk(copy))[path]
        for batch in self._batches:
            originals = _inputs_seen(self._original, self._watched[path], calls, batch)
            for source, now in zip(
                originals, _inputs_seen(copy, copied, calls, batch), strict=True
            ):
                table = patch_table(layer, source.shape[1:])
                count = int(source.shape[0])
                positions = drawn(table, count, per_sample, rng)
                indices = tf.constant(table.indices_in_batch(positions))
                weight = count * table.positions / len(positions)
                rows = gathered_rows(layer, now, indices)
                outputs = tf.matmul(gathered_rows(layer, source, indices), kernel)
                second = second + tf.matmul(rows, rows, True).numpy() * weight
                cross = cross + tf.matmul(rows, outputs, True).numpy() * weight
                seen += int(rows.shape[0])
        return PairedMoments(
            np.asarray(second, np.float64) / self._count,
            np.asarray(cross, np.float64) / self._count,
            seen,
        )


class _ReachedError(BaseException):
    """Everything wanted of a model has been seen. No `Exception`: Keras would wrap it."""


def _inputs_seen(
    model: keras.Model, layer: keras.Layer, calls: int, batch: Samples
) -> list[tf.Tensor]:
    """What a layer is called with; the model is run no further than that."""
    seen: list[tf.Tensor] = []

    def note(path: str, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        seen.append(source)
        if len(seen) == calls:
            raise _ReachedError
        return target

    with watching({"": layer}, note), suppress(_ReachedError):
        model(keras.tree.map_structure(tf.convert_to_tensor, batch), training=False)
    return seen
