"""What layers see in a compressed model, beside what they answer in the original."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lrf_core.calibration.patches import PatchTable, patch_table, positions_to_sum
from lrf_core.methods.base import Matrix
from lrf_core.models.precision import in_float32
from lrf_core.models.trace import walk, watching
from lrf_core.structure import Samples, chosen, sample_count


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


@dataclass(frozen=True)
class _Target:
    """One call of a layer in the original, on one batch, at sampled positions."""

    table: PatchTable
    outputs: tf.Tensor
    weight: float


class PairedCalibration:
    """Runs the original once, then a compressed copy as often as it is asked.

    Args:
        layers: path to convolution or dense layer of `model`.
        samples: `(samples, *input_shape)`; a list or dict of arrays for several inputs.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Mapping[str, keras.Layer],
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self._layers = layers
        self._count = sample_count(samples)
        self._batches = [
            chosen(samples, slice(start, start + batch_size))
            for start in range(0, self._count, batch_size)
        ]
        running = in_float32(model)
        watched = {path: layer for path, layer in walk(running) if path in layers}
        rngs = {path: np.random.default_rng([seed, zlib.crc32(path.encode())]) for path in layers}
        self._targets = [
            {
                path: [self._target(path, source, rngs[path]) for source in sources]
                for path, sources in _inputs_seen(running, watched, batch).items()
            }
            for batch in self._batches
        ]

    def moments(self, copy: keras.Model, path: str) -> PairedMoments:
        """Of one layer, with what it sees in `copy`, a model of the same layers."""
        layer = self._layers[path]
        second: Any = 0.0
        cross: Any = 0.0
        seen = 0
        copied = {path: dict(walk(copy))[path]}
        for batch, targets in zip(self._batches, self._targets, strict=True):
            sources = _inputs_seen(copy, copied, batch)[path]
            for source, target in zip(sources, targets[path], strict=True):
                rows = target.table.rows(layer, source)
                second = second + tf.matmul(rows, rows, True).numpy() * target.weight
                cross = cross + tf.matmul(rows, target.outputs, True).numpy() * target.weight
                seen += int(rows.shape[0])
        return PairedMoments(
            np.asarray(second, np.float64) / self._count,
            np.asarray(cross, np.float64) / self._count,
            seen,
        )

    def _target(self, path: str, source: tf.Tensor, rng: np.random.Generator) -> _Target:
        layer = self._layers[path]
        whole = patch_table(layer, source)
        table = whole.sampled(positions_to_sum(layer, self._count), rng)
        kernel = tf.reshape(tf.cast(layer.kernel, tf.float32), [-1, layer.kernel.shape[-1]])
        outputs = tf.matmul(table.rows(layer, source), kernel)
        return _Target(table, outputs, whole.positions / table.positions)


def _inputs_seen(
    model: keras.Model, layers: Mapping[str, keras.Layer], batch: Samples
) -> dict[str, list[tf.Tensor]]:
    seen: dict[str, list[tf.Tensor]] = {path: [] for path in layers}

    def note(path: str, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        seen[path].append(source)
        return target

    with watching(layers, note):
        model(keras.tree.map_structure(tf.convert_to_tensor, batch), training=False)
    return seen
