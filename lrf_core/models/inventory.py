"""Every layer of a model that has weights: what it costs, and whether it can be factorized."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Call, Cost, LayerRecord
from lrf_core.methods import Geometry, Layout
from lrf_core.methods.base import Matrix
from lrf_core.models.cost import counted_layers, layer_macs, spatial_sizes
from lrf_core.models.eligible import ineligibility_reason
from lrf_core.models.structure import SampleShape, Shape
from lrf_core.models.trace import Calls, trace, walk

LARGEST_DOUBLE = 2**24
# Ranks per mode among which the smallest is looked for.
_RANKS_TRIED = 16
_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def take_inventory(
    model: keras.Model, method_names: tuple[str, ...], input_shape: SampleShape | None = None
) -> tuple[LayerRecord, ...]:
    """List the layers with weights, in the order they are defined.

    Args:
        method_names: registered methods to consider.
        input_shape: of one sample; needed only where the model leaves sizes open.

    Raises:
        SpecError: an unknown method name.
    """
    layers = {path: layer for path, layer in walk(model) if layer.weights}
    counted = {path: counted_layers(layer, path) for path, layer in layers.items()}
    watched = {**layers, **{k: v for inside in counted.values() for k, v in inside.items()}}
    calls = trace(model, watched, input_shape)
    total = max(model.count_params(), 1)
    fixed = all(None not in tensor.shape[1:] for tensor in model.inputs)
    records = (
        _record(path, layer, calls, counted[path], total, fixed) for path, layer in layers.items()
    )
    return tuple(_with_methods(record, method_names) for record in records)


def geometry_of(record: LayerRecord) -> Geometry:
    """The geometry of a convolution or dense layer."""
    return Geometry(
        kernel_shape=record.kernel_shape,
        calls=record.calls,
        bias=record.bias,
        fixed_sizes=record.fixed_sizes,
        strides=record.strides,
    )


def kernel_matrix(layer: keras.Layer) -> Matrix:
    """The kernel of a convolution or dense layer as `(n, c)`, in float64.

    Of more than `LARGEST_DOUBLE` weights in float32: copies of it are what takes the most memory.
    """
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    precision = np.float32 if kernel.size > LARGEST_DOUBLE else np.float64
    return np.asarray(kernel.reshape(-1, kernel.shape[-1]).astype(precision, copy=False))


def _record(
    path: str,
    layer: keras.Layer,
    calls: Mapping[str, Calls],
    counted: Mapping[str, keras.Layer],
    total: int,
    fixed_sizes: bool,
) -> LayerRecord:
    params = layer.count_params()
    macs = sum(layer_macs(part, calls[inside]) for inside, part in counted.items())
    return LayerRecord(
        name=path,
        kind=type(layer).__name__,
        kernel_shape=_kernel_shape(layer),
        calls=tuple(
            _call(layer, spatial_sizes(layer, source), spatial_sizes(layer, target))
            for source, target in zip(calls[path].inputs, calls[path].outputs, strict=True)
        ),
        strides=tuple(getattr(layer, "strides", ())),
        fixed_sizes=fixed_sizes,
        bias=bool(getattr(layer, "use_bias", False)),
        cost=Cost(params=params, macs=macs),
        share=params / total,
        itemsize=_itemsize(layer),
        reason=ineligibility_reason(layer, calls[path]),
    )


def _call(layer: keras.Layer, inputs: Shape, outputs: Shape) -> Call:
    unstrided: Shape = ()
    if max(getattr(layer, "strides", ()), default=1) > 1 and isinstance(layer, _CONVOLUTIONS):
        trimmed = layer.padding == "valid"
        windows = zip(layer.kernel_size, layer.dilation_rate, strict=True)
        unstrided = tuple(
            size - trimmed * (kernel - 1) * dilation
            for size, (kernel, dilation) in zip(inputs, windows, strict=True)
        )
    return Call(inputs=inputs, outputs=outputs, unstrided=unstrided)


def _with_methods(record: LayerRecord, method_names: tuple[str, ...]) -> LayerRecord:
    chosen = [methods.get(name) for name in method_names]
    if record.reason:
        return record
    layouts = {method.name: method.layouts(geometry_of(record)) for method in chosen}
    shrinking = tuple(name for name, found in layouts.items() if any(map(_shrinks, found)))
    if shrinking:
        return record.model_copy(update={"methods": shrinking})
    reason = f"none of the methods {', '.join(method_names)} applies to its kernel"
    if any(layouts.values()):
        reason = "every factorization of its kernel has as many parameters as it has, or more"
    return record.model_copy(update={"reason": reason})


def _shrinks(layout: Layout) -> bool:
    """Whether the smallest ranks on offer have fewer parameters than the layer."""
    smallest = layout.candidate_ranks(_RANKS_TRIED)[0]
    return layout.cost(smallest).params < layout.geometry.cost.params


def _itemsize(layer: keras.Layer) -> int:
    return int(keras.ops.convert_to_numpy(keras.ops.zeros((1,), layer.weights[0].dtype)).itemsize)


def _kernel_shape(layer: keras.Layer) -> tuple[int, ...]:
    kernel = getattr(layer, "kernel", None)
    return tuple(kernel.shape) if kernel is not None else ()
