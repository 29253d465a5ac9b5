"""Every layer of a model that has weights: what it costs, and whether it can be factorized."""

from __future__ import annotations

import math

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Cost, LayerRecord
from lrf_core.methods import Geometry
from lrf_core.methods.base import Matrix
from lrf_core.models.cost import COUNTED, layer_macs, spatial_positions
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
    return tuple(
        _record(path, layer, calls[path], method_names, total) for path, layer in layers.items()
    )


def geometry_of(layer: keras.Layer, positions: int, input_positions: int) -> Geometry:
    """The geometry of a convolution or dense layer."""
    return Geometry(
        kernel_shape=tuple(layer.kernel.shape),
        positions=positions,
        input_positions=input_positions,
        bias=layer.use_bias,
    )


def kernel_matrix(layer: keras.Layer) -> Matrix:
    """The kernel of a convolution or dense layer as `(n, c)` in float64."""
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    return np.asarray(kernel.reshape(-1, kernel.shape[-1]))


def _record(
    path: str, layer: keras.Layer, calls: Calls, method_names: tuple[str, ...], total: int
) -> LayerRecord:
    params = layer.count_params()
    kernel_shape = _kernel_shape(layer)
    positions = sum(spatial_positions(layer, shape) for shape in calls.outputs)
    input_positions = sum(spatial_positions(layer, shape) for shape in calls.inputs)
    macs = layer_macs(layer, calls) if isinstance(layer, COUNTED) else 0
    reason = _why_not(layer, calls)
    applicable: tuple[str, ...] = ()
    if not reason:
        geometry = geometry_of(layer, positions, input_positions)
        applicable = tuple(name for name in method_names if methods.get(name).applies_to(geometry))
        if not applicable:
            reason = f"none of the methods {', '.join(method_names)} applies to its kernel"
    return LayerRecord(
        name=path,
        kind=type(layer).__name__,
        kernel_shape=kernel_shape,
        positions=positions,
        input_positions=input_positions,
        cost=Cost(params=params, macs=macs),
        share=params / total,
        methods=applicable,
        reason=reason,
    )


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
