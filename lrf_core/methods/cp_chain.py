"""The middle of a CP chain: channelwise convolutions, as layers that Keras ships."""

from __future__ import annotations

from collections.abc import Iterator

import keras

from lrf_core.artifacts import Call
from lrf_core.methods.base import carried_over

# Spatial axes that share one mode of the decomposition, in order.
Groups = tuple[tuple[int, ...], ...]


def depthwise(layer: keras.Layer, groups: Groups) -> Iterator[keras.Layer]:
    """Depthwise convolutions of a Conv1D or Conv2D, one for each group of spatial axes."""
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

        yield kind(
            along(layer.kernel_size),
            strides=along(layer.strides),
            dilation_rate=along(layer.dilation_rate),
            padding=padding,
            data_format=layer.data_format,
            **_depthwise_settings(layer, axes),
        )


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

        def along(value: int, here: int = here) -> tuple[int, int]:
            return (1, value) if here else (value, 1)

        yield layers.DepthwiseConv2D(
            along(layer.kernel_size[axis]),
            strides=along(layer.strides[axis]),
            dilation_rate=along(layer.dilation_rate[axis]),
            padding=layer.padding,
            data_format="channels_last",
            **_depthwise_settings(layer, (axis,)),
        )
        sizes[here] = call.outputs[axis]
        yield layers.Reshape((*sizes, rank))
        if middle:
            yield layers.Permute((2, 1, 3, 4))
            sizes[0], sizes[1] = sizes[1], sizes[0]
    if first:
        yield layers.Permute((4, 1, 2, 3))


def _depthwise_settings(layer: keras.Layer, axes: tuple[int, ...]) -> dict[str, object]:
    settings = carried_over(layer, "cp_axis" + "_".join(str(axis) for axis in axes))
    settings["depthwise_regularizer"] = settings.pop("kernel_regularizer")
    return {**settings, "use_bias": False}
