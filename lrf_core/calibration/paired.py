"""What layers see in a compressed model, beside what they answer in the original."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class _Target:
    """One call of a layer in the original, on one batch, at sampled positions."""

    indices: NDArray[np.int32]
    outputs: tf.Tensor
    weight: float


class PairedCalibration:
    """Runs the original once, then a compressed copy as often as it is asked.

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
        running = in_float32(model)
        batch_size = batch_size or _batch_size(running, samples, memory_bytes)
        self._batches = [
            chosen(samples, slice(start, start + batch_size))
            for start in range(0, self._count, batch_size)
        ]
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
                rows = gathered_rows(layer, source, tf.constant(target.indices))
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
        table = patch_table(layer, source.shape[1:])
        count = int(source.shape[0])
        positions = drawn(table, count, positions_to_sum(layer, self._count), rng)
        indices = table.indices_in_batch(positions)
        kernel = tf.reshape(tf.cast(layer.kernel, tf.float32), [-1, layer.kernel.shape[-1]])
        outputs = tf.matmul(gathered_rows(layer, source, tf.constant(indices)), kernel)
        return _Target(indices, outputs, count * table.positions / len(positions))


def _batch_size(model: keras.Model, samples: Samples, memory_bytes: int) -> int:
    found = survey(model, {}, chosen(samples, slice(1)))
    return batch_size_for(found.bytes_per_sample, memory_bytes)


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
