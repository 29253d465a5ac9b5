"""Every layer of a model that has weights: what it costs, and whether it can be factorized."""

from __future__ import annotations

import math

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Call, Cost, LayerRecord
from lrf_core.methods import Geometry
from lrf_core.methods.base import Matrix
from lrf_core.models.cost import COUNTED, layer_macs, spatial_sizes
from lrf_core.models.trace import Calls, Shape, trace, walk

FACTORIZABLE = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
)


def take_inventory(
    model: keras.Model, method_names: tuple[str, ...], input_shape: Shape | None = None
) -> tuple[LayerRecord, ...]:
    """List the layers with weights, in the order they are defined.

    Args:
        method_names: registered methods to consider.
        input_shape: of one sample; needed only where the model leaves sizes open.

    Raises:
        SpecError: an unknown method name.
    """
    layers = {path: layer for path, layer in walk(model) if layer.weights}
    calls = trace(model, layers, input_shape)
    total = max(model.count_params(), 1)
    fixed = all(None not in tensor.shape[1:] for tensor in model.inputs)
    records = (_record(path, layer, calls[path], total, fixed) for path, layer in layers.items())
    return tuple(_with_methods(record, method_names) for record in records)


def geometry_of(record: LayerRecord) -> Geometry:
    """The geometry of a convolution or dense layer."""
    return Geometry(
        kernel_shape=record.kernel_shape,
        calls=record.calls,
        bias=record.bias,
        fixed_sizes=record.fixed_sizes,
    )


def kernel_matrix(layer: keras.Layer) -> Matrix:
    """The kernel of a convolution or dense layer as `(n, c)` in float64."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    return np.asarray(kernel.reshape(-1, kernel.shape[-1]))


def _record(
    path: str, layer: keras.Layer, calls: Calls, total: int, fixed_sizes: bool
) -> LayerRecord:
    params = layer.count_params()
    macs = layer_macs(layer, calls) if isinstance(layer, COUNTED) else 0
    return LayerRecord(
        name=path,
        kind=type(layer).__name__,
        kernel_shape=_kernel_shape(layer),
        calls=tuple(
            Call(inputs=spatial_sizes(layer, source), outputs=spatial_sizes(layer, target))
            for source, target in zip(calls.inputs, calls.outputs, strict=True)
        ),
        fixed_sizes=fixed_sizes,
        bias=bool(getattr(layer, "use_bias", False)),
        cost=Cost(params=params, macs=macs),
        share=params / total,
        reason=_why_not(layer, calls),
    )


def _with_methods(record: LayerRecord, method_names: tuple[str, ...]) -> LayerRecord:
    chosen = [methods.get(name) for name in method_names]
    if record.reason:
        return record
    geometry = geometry_of(record)
    applicable = tuple(method.name for method in chosen if method.forms(geometry))
    if applicable:
        return record.model_copy(update={"methods": applicable})
    reason = f"none of the methods {', '.join(method_names)} applies to its kernel"
    return record.model_copy(update={"reason": reason})


def _kernel_shape(layer: keras.Layer) -> tuple[int, ...]:
    kernel = getattr(layer, "kernel", None)
    return tuple(kernel.shape) if kernel is not None else ()


def _why_not(layer: keras.Layer, calls: Calls) -> str:
    if type(layer) not in FACTORIZABLE:
        return f"{type(layer).__name__} layers are not factorized"
    if getattr(layer, "groups", 1) > 1:
        return f"grouped convolution ({layer.groups} groups): low rank across groups already"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "the layer carries LoRA or quantized weights"
    if not calls.outputs:
        return "the layer is not called with a single tensor"
    if math.prod(layer.kernel.shape[-2:]) == 1:
        return "one channel in, one out: nothing to factorize"
    if not np.any(keras.ops.convert_to_numpy(layer.kernel)):
        return "the kernel is all zeros"
    return ""
