"""Which layers can be replaced by a chain, and why the others stay as they are."""

from __future__ import annotations

import math

import keras
import numpy as np

from lrf_core.models.trace import Calls

_layers = keras.layers
FACTORIZABLE = (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D, _layers.Dense)

# The first kind that fits gives the reason.
_REASONS: tuple[tuple[tuple[type, ...], str], ...] = (
    (
        (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D),
        "depthwise convolution: one small kernel for each channel, no channels to factorize over",
    ),
    (
        (_layers.SeparableConv1D, _layers.SeparableConv2D),
        "separable convolution: its kernel is a product of two small ones already",
    ),
    (
        (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose),
        "transposed convolution: no method has a chain for it",
    ),
    ((_layers.EinsumDense,), "product over axes of its own choice: no method has a chain for it"),
    ((_layers.Embedding,), "embedding: a table that is looked up, not a kernel"),
    (
        (_layers.RNN, _layers.Bidirectional),
        "recurrent layer: its kernels are used in a loop inside the layer",
    ),
    (
        (_layers.MultiHeadAttention, _layers.GroupQueryAttention),
        "attention: its projections are inside the layer, where no chain can stand",
    ),
)


def ineligibility_reason(layer: keras.Layer, calls: Calls) -> str:
    """Why a layer with weights cannot be replaced; empty if it can."""
    return _kind_ineligibility_reason(layer) or _why_this_one_stays(layer, calls)


def _kind_ineligibility_reason(layer: keras.Layer) -> str:
    kind = type(layer).__name__
    if type(layer) in FACTORIZABLE:
        return ""
    if isinstance(layer, FACTORIZABLE):
        return f"{kind} is a class of its own; only the stock layer it is made from is replaced"
    for kinds, reason in _REASONS:
        if isinstance(layer, kinds):
            return reason
    if isinstance(layer, _layers.Wrapper):
        return f"inside {kind}: {type(layer.layer).__name__} '{layer.layer.name}' stays"
    if not type(layer).__module__.startswith("keras."):
        return f"{kind} is a custom layer that is more than calls of stock layers"
    return f"{kind} has no kernel to factorize"


def _why_this_one_stays(layer: keras.Layer, calls: Calls) -> str:
    if getattr(layer, "groups", 1) > 1:
        return f"grouped convolution ({layer.groups} groups): low rank across groups already"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "the layer carries LoRA or quantized weights"
    if isinstance(layer.activation, keras.Layer) and layer.activation.weights:
        return f"its activation {type(layer.activation).__name__} has weights of its own"
    if not calls.outputs:
        return "the layer is not called with a single tensor"
    if math.prod(layer.kernel.shape) == max(layer.kernel.shape[-2:]):
        return "one channel in or out: its kernel has rank 1 already"
    if not np.any(keras.ops.convert_to_numpy(layer.kernel)):
        return "the kernel is all zeros"
    return ""
