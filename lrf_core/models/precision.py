"""Models whose layers compute or store their weights in less than float32."""

from __future__ import annotations

from collections.abc import Callable
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


def with_policy(model: keras.Model, policy: str) -> keras.Model:
    """A copy in which float32 layers compute by a mixed policy, or the model itself for "float32".

    Weights stay float32, and so do the layers that answer: the logarithm of a float16 probability
    says little.
    """
    if policy == "float32":
        return model
    answering = {id(tensor._keras_history.operation) for tensor in model.outputs}

    def mixed(name: str) -> str:
        return policy if name == "float32" else name

    def copy(layer: keras.Layer) -> keras.Layer:
        keeps = id(layer) in answering
        return copy_with(layer, {} if keeps else _with_policies(layer.get_config(), mixed))

    return rebuilt(model, {}, copy)


def _copy_in_float32(layer: keras.Layer) -> keras.Layer:
    return copy_with(layer, _with_policies(layer.get_config(), _float32))


def _float32(name: str) -> str:
    return "float32" if name.endswith("float16") else name


def _with_policies(config: dict[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """The config with every policy in it, also of layers inside, by its new name."""
    return {key: _renamed(key, value, rename) for key, value in config.items()}


def _renamed(key: str, value: Any, rename: Callable[[str], str]) -> Any:
    if key == "dtype":
        name = str(value["config"].get("name") if isinstance(value, dict) else value)
        return value if rename(name) == name else rename(name)
    if isinstance(value, dict):
        return _with_policies(value, rename)
    if isinstance(value, (list, tuple)):
        return type(value)(_renamed("", item, rename) for item in value)
    return value
