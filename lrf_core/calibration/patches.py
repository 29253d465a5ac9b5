"""Input rows of a layer: what each output position sees, gathered at sampled positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from lrf_core.calibration.lazy_tensorflow import tf

# Rows summed into a second moment, at least, and per input value: more change it no more.
SUMMED_ROWS = 32768
SUMMED_ROWS_PER_INPUT = 8

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PatchTable:
    """Where the output positions of one call of a layer look in its input.

    Positions are counted in row-major order. Nothing here grows with the number of positions
    times the size of the window, whatever the size of the maps.

    Attributes:
        inputs: sizes of the input along the spatial axes; none for a plain dense layer.
        axes: for each of them `(outputs, kernel)`: the index along the axis that each position of
            the kernel sees, -1 in the padding.
    """

    inputs: tuple[int, ...]
    axes: tuple[Indices, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Sizes of the output along the spatial axes."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def positions(self) -> int:
        """Output positions of one sample."""
        return math.prod(self.outputs)

    @property
    def window(self) -> int:
        """Input positions that one output position sees."""
        return math.prod(axis.shape[1] for axis in self.axes)

    def indices(self, positions: Indices) -> Indices:
        """Input positions seen from output positions `(m,)`: `(m, window)`, -1 in the padding.

        The window is in row-major order, as Keras stores kernels.
        """
        count = len(positions)
        seen = np.zeros((count, 1), np.int64)
        inside = np.ones((count, 1), bool)
        coordinates = np.unravel_index(positions, self.outputs) if self.axes else ()
        for size, axis, at in zip(self.inputs, self.axes, coordinates, strict=True):
            along = axis[at][:, None, :]
            seen = (seen[:, :, None] * size + np.maximum(along, 0)).reshape(count, -1)
            inside = (inside[:, :, None] & (along >= 0)).reshape(count, -1)
        return np.where(inside, seen, -1)

    def indices_in_batch(self, positions: Indices) -> NDArray[np.int32]:
        """The same for positions and indices that count on through the samples of a batch."""
        samples, within = np.divmod(positions, self.positions)
        seen = self.indices(within)
        offsets = samples[:, None] * math.prod(self.inputs)
        return np.where(seen >= 0, seen + offsets, -1).astype(np.int32)


def patch_table(layer: keras.Layer, input_shape: Sequence[int]) -> PatchTable:
    """The table of a Conv1D, Conv2D, Conv3D or Dense layer.

    Args:
        input_shape: of one sample at one call of the layer, with channels.
    """
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    sizes = tuple(input_shape[:-1] if last else input_shape[1:])
    if isinstance(layer, keras.layers.Dense):
        return PatchTable(sizes, tuple(np.arange(size)[:, None] for size in sizes))
    axes = tuple(
        _axis_positions(size, kernel, stride, dilation, layer.padding)
        for size, kernel, stride, dilation in zip(
            sizes, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    )
    return PatchTable(sizes, axes)


def gathered_rows(layer: keras.Layer, source: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Rows `(m, n)` float32 from an input of the layer, by indices `(m, window)` in its batch."""
    values = tf.gather(_positions_first(layer, source), tf.maximum(indices, 0))
    values = tf.where(indices[:, :, None] >= 0, values, 0.0)
    return tf.reshape(values, [-1, math.prod(layer.kernel.shape[:-1])])


def gathered_positions(layer: keras.Layer, target: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Channels `(m, c)` float32 of an output of the layer, at positions `(m,)` in its batch."""
    return tf.gather(_positions_first(layer, target), positions)


def positions_to_sum(layer: keras.Layer, samples: int) -> int:
    """How many positions of each sample are enough for the layer's second moment."""
    width = int(math.prod(layer.kernel.shape[:-1]))
    return math.ceil(max(SUMMED_ROWS, SUMMED_ROWS_PER_INPUT * width) / samples)


def _positions_first(layer: keras.Layer, tensor: tf.Tensor) -> tf.Tensor:
    """A batch of feature maps as `(samples * positions, channels)` float32."""
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        tensor = tf.transpose(tensor, [0, *range(2, len(tensor.shape)), 1])
    return tf.reshape(tf.cast(tensor, tf.float32), [-1, tensor.shape[-1]])


def _axis_positions(size: int, kernel: int, stride: int, dilation: int, padding: str) -> Indices:
    """`(outputs, kernel)` indices along one axis, -1 in the padding, by TensorFlow's rules."""
    extent = (kernel - 1) * dilation + 1
    before = after = 0
    if padding == "same":
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        before, after = total // 2, total - total // 2
    elif padding == "causal":
        before = extent - 1
    outputs = (size + before + after - extent) // stride + 1
    seen = np.arange(outputs)[:, None] * stride + np.arange(kernel)[None, :] * dilation - before
    return np.where((seen >= 0) & (seen < size), seen, -1)
