"""Which input values each output position of a convolution sees (im2col as an index table)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PatchTable:
    """Index table of one call of a convolution.

    Attributes:
        padding: zeros before and after each spatial axis.
        indices: `(positions, window)`, into the padded input's flattened spatial axes; the window
            is in row-major order, as Keras stores kernels.
    """

    padding: tuple[tuple[int, int], ...]
    indices: NDArray[np.int32]


def patch_table(layer: keras.Layer, spatial: tuple[int, ...]) -> PatchTable:
    """The table of a Conv1D, Conv2D or Conv3D layer for an input of these spatial sizes."""
    axes = [
        _axis_positions(size, kernel, stride, dilation, layer.padding)
        for size, kernel, stride, dilation in zip(
            spatial, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    ]
    padding = tuple(pad for pad, _ in axes)
    padded = [size + sum(pad) for size, pad in zip(spatial, padding, strict=True)]
    indices: NDArray[np.int64] = np.zeros((1, 1), np.int64)
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
