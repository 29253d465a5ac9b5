"""What a model costs: parameters and multiply-adds, counted in closed form from traced shapes.

Multiply-adds (MACs) are those of convolutions, dense and einsum layers for one sample; batch norm,
activations, pooling and additions are not counted, as is usual in the field.
"""

from __future__ import annotations

import math

import keras

from lrf_core.artifacts import Cost
from lrf_core.models.structure import SampleShape, Shape
from lrf_core.models.trace import Calls, trace

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
COUNTED = (
    *_CONVOLUTIONS,
    *_SEPARABLE,
    *_TRANSPOSED,
    keras.layers.Dense,
    keras.layers.EinsumDense,
)


def spatial_sizes(layer: keras.Layer, shape: Shape) -> Shape:
    """Every axis but the channels of a feature map of `shape` (no batch axis)."""
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return shape[1:] if channels_first else shape[:-1]


def spatial_positions(layer: keras.Layer, shape: Shape) -> int:
    """Positions in a feature map of `shape` (no batch axis)."""
    return math.prod(spatial_sizes(layer, shape))


def layer_macs(layer: keras.Layer, calls: Calls) -> int:
    """Multiply-adds of one layer for one sample, summed over its calls."""
    return sum(
        _macs_of_call(layer, source, target)
        for source, target in zip(calls.inputs, calls.outputs, strict=True)
    )


def _macs_of_call(layer: keras.Layer, source: Shape, target: Shape) -> int:
    if isinstance(layer, _TRANSPOSED):
        return spatial_positions(layer, source) * int(math.prod(layer.kernel.shape))
    if isinstance(layer, _SEPARABLE):
        weights = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return spatial_positions(layer, target) * int(weights)
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum_macs(layer, source)
    return spatial_positions(layer, target) * int(math.prod(layer.kernel.shape))


def _einsum_macs(layer: keras.layers.EinsumDense, source: Shape) -> int:
    """Every index of the equation is one loop: the product of their sizes is the MACs."""
    inputs, kernel = layer.equation.split("->")[0].split(",")
    sizes = dict(zip(kernel.strip(), layer.kernel.shape, strict=True))
    named = inputs.strip().replace("...", "")
    for index, size in zip(reversed(named), reversed((1, *source)), strict=False):
        sizes.setdefault(index, size)
    unnamed = source[: len(source) - len(named)] if "..." in inputs else ()
    return math.prod(sizes.values()) * math.prod(unnamed)


def counted_layers(layer: keras.Layer, path: str = "") -> dict[str, keras.Layer]:
    """The layer and those inside it, also in wrappers and attention, that have multiply-adds.

    Each is there once, under a key that begins with `path` and tells where it is.
    """
    return {
        f"{path}:{position}:{part.name}": part
        for position, part in enumerate(layer._flatten_layers())
        if isinstance(part, COUNTED)
    }


def model_cost(model: keras.Model, input_shape: SampleShape | None = None) -> Cost:
    """Parameters and multiply-adds of a built model for one sample.

    Args:
        input_shape: of one sample; needed only where the model leaves sizes open.
    """
    layers = counted_layers(model)
    calls = trace(model, layers, input_shape)
    macs = sum(layer_macs(layer, calls[path]) for path, layer in layers.items())
    return Cost(params=model.count_params(), macs=macs)
