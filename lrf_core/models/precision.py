"""Models whose layers compute or store their weights in less than float32."""

from __future__ import annotations

from typing import Any

import keras

from lrf_core.models.rebuild import copy_with, rebuilt
from lrf_core.models.trace import walk

# What the same arithmetic in another order, and weights rounded on storing, may change of the
# output scale. Rounding errors are 2^-12 of a weight in float16 and 2^-9 in bfloat16.
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
_FLOAT32_TOLERANCE = 1e-3


def tolerance_of_weights(model: keras.Model) -> float:
    """How far apart, as a share of the output scale, rounding the weights may put two models."""
    return _tolerance({weight.dtype for weight in model.weights})


def tolerance_of_arithmetic(model: keras.Model) -> float:
    """How far apart, as a share of the output scale, the order of operations may put two models."""
    computed = {part.compute_dtype for _, layer in walk(model) for part in layer._flatten_layers()}
    return max(_tolerance(computed), tolerance_of_weights(model))


def _tolerance(dtypes: set[str]) -> float:
    return max((_TOLERANCE.get(dtype, _FLOAT32_TOLERANCE) for dtype in dtypes), default=0.0)


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself if it computes in float32, else a copy that does, with the same layers."""
    if all(_is_float32(layer) for _, layer in walk(model)):
        return model
    return rebuilt(model, {}, _copy_in_float32)


def _is_float32(layer: keras.Layer) -> bool:
    return not any(
        str(dtype).endswith("float16")
        for part in layer._flatten_layers()
        for dtype in (part.compute_dtype, part.variable_dtype)
    )


def _copy_in_float32(layer: keras.Layer) -> keras.Layer:
    return copy_with(layer, _with_float32(layer.get_config()))


def _with_float32(config: dict[str, Any]) -> dict[str, Any]:
    """The config with every low-precision policy in it, also of layers inside, made float32."""
    return {key: _float32_of(key, value) for key, value in config.items()}


def _float32_of(key: str, value: Any) -> Any:
    if key == "dtype":
        name = value["config"].get("name") if isinstance(value, dict) else value
        return "float32" if str(name).endswith("float16") else value
    if isinstance(value, dict):
        return _with_float32(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_float32_of("", item) for item in value)
    return value
