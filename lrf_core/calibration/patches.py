"""Input rows of a layer: what each output position sees, gathered at sampled positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# Rows summed into a second moment, at least, and per input value: more change it no more.
SUMMED_ROWS = 32768
SUMMED_ROWS_PER_INPUT = 64


@dataclass(frozen=True)
class PatchTable:
    """Index table of one call of a layer.

    Attributes:
        padding: zeros before and after each spatial axis.
        indices: `(positions, window)`, into the padded input's flattened spatial axes; the window
            is in row-major order, as Keras stores kernels.
    """

    padding: tuple[tuple[int, int], ...]
    indices: NDArray[np.int32]

    @property
    def positions(self) -> int:
        return len(self.indices)

    def sampled(self, count: int, rng: np.random.Generator) -> PatchTable:
        """The table with at most `count` positions, in order."""
        count = min(count, self.positions)
        chosen = np.sort(rng.choice(self.positions, count, replace=False))
        return PatchTable(self.padding, self.indices[chosen])

    def rows(self, layer: keras.Layer, source: tf.Tensor) -> tf.Tensor:
        """Gather the rows `(samples * positions, n)` float32 from an input of the layer."""
        source = tf.cast(channels_last(layer, source), tf.float32)
        padded = tf.pad(source, [(0, 0), *self.padding, (0, 0)])
        flat = tf.reshape(padded, [source.shape[0], -1, source.shape[-1]])
        return tf.reshape(
            tf.gather(flat, self.indices, axis=1), [-1, self.indices.shape[1] * source.shape[-1]]
        )


def positions_to_sum(layer: keras.Layer, samples: int) -> int:
    """How many positions of each sample are enough for the layer's second moment."""
    width = int(math.prod(layer.kernel.shape[:-1]))
    return math.ceil(max(SUMMED_ROWS, SUMMED_ROWS_PER_INPUT * width) / samples)


def channels_last(layer: keras.Layer, tensor: tf.Tensor) -> tf.Tensor:
    """A batch of feature maps with the channels moved to the last axis."""
    if getattr(layer, "data_format", "channels_last") == "channels_last":
        return tensor
    return tf.transpose(tensor, [0, *range(2, len(tensor.shape)), 1])


def patch_table(layer: keras.Layer, source: tf.Tensor) -> PatchTable:
    """The table of a Conv1D, Conv2D, Conv3D or Dense layer for one of its inputs."""
    spatial = tuple(channels_last(layer, source).shape[1:-1])
    if isinstance(layer, keras.layers.Dense):
        indices: NDArray[np.int64] = np.arange(math.prod(spatial))[:, None]
        return PatchTable(((0, 0),) * len(spatial), indices.astype(np.int32))
    axes = [
        _axis_positions(size, kernel, stride, dilation, layer.padding)
        for size, kernel, stride, dilation in zip(
            spatial, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    ]
    padding = tuple(pad for pad, _ in axes)
    padded = [size + sum(pad) for size, pad in zip(spatial, padding, strict=True)]
    indices = np.zeros((1, 1), np.int64)
    for size, (_, table) in zip(padded, axes, strict=True):
        combined = indices[:, None, :, None] * size + table[None, :, None, :]
        indices = combined.reshape(math.prod(combined.shape[:2]), math.prod(combined.shape[2:]))
    return PatchTable(padding, indices.astype(np.int32))


def _axis_positions(
    size: int, kernel: int, stride: int, dilation: int, padding: str
) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Padding and `(outputs, kernel)` padded indices along one axis, by TensorFlow's rules."""
    extent = (kernel - 1) * dilation + 1
    if padding == "same":
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        pad = (total // 2, total - total // 2)
    elif padding == "causal":
        pad = (extent - 1, 0)
    else:
        pad = (0, 0)
    outputs = (size + sum(pad) - extent) // stride + 1
    return pad, np.arange(outputs)[:, None] * stride + np.arange(kernel)[None, :] * dilation
