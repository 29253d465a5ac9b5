"""Configs that Keras 2 wrote (tf.keras up to TensorFlow 2.15), in the terms of Keras 3.

Keras 3 reads most of them, but stumbles over settings that it has dropped since, among them one
that every Keras 2 depthwise convolution has.
"""

from __future__ import annotations

from typing import Any

_MODELS = ("Functional", "Model", "Sequential")
# Settings that Keras 3 no longer has, and that said nothing or the default.
_DROPPED = {
    "DepthwiseConv1D": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "LSTM": ("time_major", "implementation"),
    "GRU": ("time_major", "implementation"),
    "SimpleRNN": ("time_major", "implementation"),
    "InputLayer": ("ragged",),
}


def is_keras2(version: object) -> bool:
    """Whether a file's `keras_version` is one of Keras 2."""
    return str(version).startswith("2.")


def upgraded(model: dict[str, Any]) -> dict[str, Any]:
    """The config of a Functional or Sequential model, with all models and layers in it, as Keras 3
    writes it."""
    settings = dict(model["config"])
    layers = [_layer(layer) for layer in settings["layers"]]
    if model["class_name"] == "Sequential":
        settings["layers"] = [*_input_layer(settings["layers"]), *layers]
    else:
        settings["layers"] = layers
        sequential = {part["name"] for part in layers if part["class_name"] == "Sequential"}
        for layer in layers:
            nodes = layer["inbound_nodes"]
            layer["inbound_nodes"] = [[_tensor(t, sequential) for t in node] for node in nodes]
        for ends in ("input_layers", "output_layers"):
            settings[ends] = _tensors(settings[ends], sequential)
    name = "Sequential" if model["class_name"] == "Sequential" else "Model"
    return {**_kept(model), "class_name": name, "module": "keras", "config": settings}


def _layer(layer: dict[str, Any]) -> dict[str, Any]:
    kind = layer["class_name"]
    if kind in _MODELS:
        return upgraded(layer)
    settings = _settings(kind, layer["config"])
    if isinstance(settings.get("layer"), dict):  # a wrapper
        settings["layer"] = _layer(settings["layer"])
    return {**_kept(layer), "class_name": kind, "module": "keras.layers", "config": settings}


def _kept(part: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: part[key] for key in ("name", "inbound_nodes") if key in part}
    kept["registered_name"] = None
    return kept


def _settings(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in config.items() if key not in _DROPPED.get(kind, ())}
    shape = settings.pop("batch_input_shape", None)
    if kind == "InputLayer":
        settings["batch_shape"] = shape
    if isinstance(settings.get("dtype"), dict):
        settings["dtype"] = settings["dtype"]["config"]["name"]
    if kind == "BatchNormalization" and isinstance(settings.get("axis"), list):
        (settings["axis"],) = settings["axis"]
    if kind == "LeakyReLU" and "alpha" in settings:
        settings["negative_slope"] = settings.pop("alpha")
    return settings


def _input_layer(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an old Sequential says in its first layer only."""
    shape = layers[0]["config"].get("batch_input_shape")
    if layers[0]["class_name"] == "InputLayer" or shape is None:
        return []
    return [_layer({"class_name": "InputLayer", "config": {"batch_input_shape": shape}})]


def _tensor(tensor: list[Any], sequential: set[str]) -> list[Any]:
    """`[layer, call, output, ...]`; Keras 3 counts the calls of a Sequential from 0, not from 1."""
    shift = 1 if tensor[0] in sequential else 0
    return [tensor[0], tensor[1] - shift, *tensor[2:]]


def _tensors(ends: Any, sequential: set[str]) -> Any:
    if isinstance(ends, dict):
        return {name: _tensors(end, sequential) for name, end in ends.items()}
    if ends and isinstance(ends[0], str):
        return _tensor(ends, sequential)
    return [_tensors(end, sequential) for end in ends]
