"""The middle of a CP chain: channelwise convolutions, as layers that Keras ships.

TensorFlow's depthwise convolutions have equal strides in both axes (oneDNN's on CPUs do not ask for
that). So one that covers a strided axis alone has strides of 1, and a pooling layer whose window is
one position takes every second of its outputs, say.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from lrf_core.artifacts import Call
from lrf_core.methods.base import carried_over

# Spatial axes that share one mode of the decomposition, in order.
Groups = tuple[tuple[int, ...], ...]


def depthwise(layer: keras.Layer, groups: Groups, call: Call) -> Iterator[keras.Layer]:
    """Depthwise convolutions of a Conv1D or Conv2D, one for each group of spatial axes.

    Args:
        call: sizes of the maps; of no matter where a group covers all axes.
    """
    kind = (
        keras.layers.DepthwiseConv1D
        if len(layer.kernel_size) == 1
        else keras.layers.DepthwiseConv2D
    )
    padding = layer.padding
    if padding == "causal":
        # The convolution before has no bias: zeros here are zeros in its input.
        before = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        yield keras.layers.ZeroPadding1D(
            (before, 0), data_format=layer.data_format, name=f"{layer.name}_cp_causal"
        )
        padding = "valid"
    for axes in groups:

        def along(values: tuple[int, ...], axes: tuple[int, ...] = axes) -> tuple[int, ...]:
            return tuple(value if axis in axes else 1 for axis, value in enumerate(values))

        strides, settings = along(layer.strides), _depthwise_settings(layer, axes)
        alike = len(set(strides)) == 1
        yield kind(
            along(layer.kernel_size),
            strides=strides if alike else 1,
            dilation_rate=along(layer.dilation_rate),
            padding=padding,
            data_format=layer.data_format,
            **settings,
        )
        if not alike:
            skipped = tuple(_skipped(layer, axis, call) * (axis in axes) for axis in range(2))
            yield from _every(strides, skipped, layer.data_format, f"{settings['name']}_every")


def depthwise_3d(
    layer: keras.Layer, groups: Groups, call: Call, rank: int
) -> Iterator[keras.Layer]:
    """Channelwise convolution of a volume, one axis at a time, the others folded into one.

    Args:
        groups: of one axis each.
        call: the only size of map that the layer is used on.
        rank: channels.
    """
    layers = keras.layers
    sizes = list(call.inputs)
    first = layer.data_format == "channels_first"
    if first:
        yield layers.Permute((2, 3, 4, 1))
    for (axis,) in groups:
        middle = axis == 1
        if middle:
            yield layers.Permute((2, 1, 3, 4))
            sizes[0], sizes[1] = sizes[1], sizes[0]
        here = 2 if axis == 2 else 0
        folded = (sizes[0] * sizes[1], sizes[2]) if here else (sizes[0], sizes[1] * sizes[2])
        yield layers.Reshape((*folded, rank))

        def along(value: int, other: int = 1, here: int = here) -> tuple[int, int]:
            return (other, value) if here else (value, other)

        settings = _depthwise_settings(layer, (axis,))
        yield layers.DepthwiseConv2D(
            along(layer.kernel_size[axis]),
            dilation_rate=along(layer.dilation_rate[axis]),
            padding=layer.padding,
            data_format="channels_last",
            **settings,
        )
        if layer.strides[axis] > 1:
            skipped = along(_skipped(layer, axis, call), 0)
            strides = along(layer.strides[axis])
            yield from _every(strides, skipped, "channels_last", f"{settings['name']}_every")
        sizes[here] = call.outputs[axis]
        yield layers.Reshape((*sizes, rank))
        if middle:
            yield layers.Permute((2, 1, 3, 4))
            sizes[0], sizes[1] = sizes[1], sizes[0]
    if first:
        yield layers.Permute((4, 1, 2, 3))


def _skipped(layer: keras.Layer, axis: int, call: Call) -> int:
    """Outputs at strides of 1 before the first one that the strided convolution has, too.

    With padding "same" both pad evenly, what is odd at the end; but not by equal amounts.
    """
    if layer.padding == "valid":
        return 0
    window: int = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis]
    reach: int = (call.outputs[axis] - 1) * layer.strides[axis] + window + 1
    return window // 2 - max(0, reach - call.inputs[axis]) // 2


def _every(
    strides: tuple[int, ...], skipped: tuple[int, ...], data_format: str, name: str
) -> Iterator[keras.Layer]:
    """Every so many positions of a map, from the one after those that are skipped."""
    if any(skipped):
        yield keras.layers.Cropping2D(
            tuple((count, 0) for count in skipped), data_format=data_format, name=f"{name}_from"
        )
    yield keras.layers.MaxPooling2D(1, strides, data_format=data_format, name=name)


def _depthwise_settings(layer: keras.Layer, axes: tuple[int, ...]) -> dict[str, object]:
    settings = carried_over(layer, "cp_axis" + "_".join(str(axis) for axis in axes))
    settings["depthwise_regularizer"] = settings.pop("kernel_regularizer")
    return {**settings, "use_bias": False}
