"""Models for the tests of export: every kind of layer that a factorized model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lrf_core.models.structure import input_structure

layers = keras.layers


def chain(shape: tuple[int | None, ...], *parts: keras.Layer, name: str = "chain") -> keras.Model:
    """One layer after the other; a classifier of 5 classes with names and weights of its own."""
    inputs = keras.Input(shape, name="signal")
    x = inputs
    for part in parts:
        x = part(x)
    return keras.Model(inputs, layers.Dense(5, name="answer")(x), name=name)


def joined(inputs: list[Any], features: list[Any], name: str) -> keras.Model:
    """A classifier of 5 classes on the features of several inputs."""
    flat = [layers.Flatten()(feature) for feature in features]
    outputs = layers.Dense(5, name="answer")(layers.Concatenate()(flat))
    return keras.Model(inputs, outputs, name=name)


def chains() -> keras.Model:
    """What tucker, cp, tensor_train, svd, qr and t3f make of 1-D and 2-D convolutions and Dense."""
    signal, image, vector = (
        keras.Input(shape, name=name)
        for name, shape in (("signal", (24, 3)), ("image", (10, 10, 3)), ("vector", (64,)))
    )
    x = layers.Conv1D(16, 3, padding="causal", dilation_rate=2, activation="relu")(signal)
    x = layers.DepthwiseConv1D(3)(layers.ZeroPadding1D((2, 1))(x))
    x = layers.Conv1D(40, 3, strides=2, groups=2)(x)
    y = layers.DepthwiseConv2D((3, 1), padding="same")(layers.Conv2D(16, 1)(image))
    y = layers.DepthwiseConv2D((1, 3), padding="same", dilation_rate=(1, 2))(y)
    y = layers.Conv2D(40, 1, activation="gelu")(layers.Conv2D(32, 3, strides=2, groups=4)(y))
    z = layers.Permute((3, 1, 2))(layers.Reshape((2, 4, 8))(vector))
    z = layers.EinsumDense("bijk,klR->bijlR", output_shape=(8, 2, 4, 5))(z)
    z = layers.EinsumDense("bijlR,jRrm->bilrm", output_shape=(8, 4, 3, 3), bias_axes="m")(z)
    return joined([signal, image, vector], [x, y, layers.Reshape((8 * 4 * 9,))(z)], "chains")


def chains_3d() -> keras.Model:
    """Conv3D, channels last and channels first."""
    last, first = keras.Input((5, 5, 5, 4), name="last"), keras.Input((4, 5, 5, 5), name="first")
    x = layers.Conv3D(48, (1, 3, 3))(layers.Conv3D(8, (3, 1, 1), padding="same")(last))
    y = layers.Conv3D(16, 3, data_format="channels_first")(first)
    return joined([last, first], [x, y], "chains_3d")


def channels_first() -> keras.Model:
    signal, image = keras.Input((3, 24), name="signal"), keras.Input((3, 9, 9), name="image")
    here = {"data_format": "channels_first"}
    x = layers.DepthwiseConv1D(3, **here)(layers.Conv1D(16, 3, **here)(signal))
    x = layers.ZeroPadding1D(1, **here)(x)
    y = layers.BatchNormalization(axis=1)(layers.Conv2D(16, 3, strides=2, **here)(image))
    y = layers.DepthwiseConv2D(3, padding="same", **here)(y)
    y = layers.MaxPooling2D(2, **here)(y)
    return joined([signal, image], [x, y], "channels_first")


def mixed_float16() -> keras.Model:
    return chain(
        (10, 10, 3),
        layers.Conv2D(16, 3, dtype="mixed_float16"),
        layers.BatchNormalization(dtype="mixed_float16"),
        layers.GlobalAveragePooling2D(dtype="mixed_float16"),
    )


def list_of_inputs() -> keras.Model:
    """Two inputs and two outputs alike in shape; no order of names is the model's order."""
    first, second = keras.Input((32,), name="zeta"), keras.Input((32,), name="alpha")
    x = layers.Subtract()([layers.Dense(48)(first), layers.Dense(48, activation="tanh")(second)])
    outputs = [layers.Dense(5, name="yes")(x), layers.Dense(5, name="also")(x)]
    return keras.Model([first, second], outputs, name="lists")


def dict_of_inputs() -> keras.Model:
    inputs = {"zeta": keras.Input((32,), name="zeta"), "alpha": keras.Input((32,), name="alpha")}
    x = layers.Subtract()([layers.Dense(48)(inputs["zeta"]), layers.Dense(48)(inputs["alpha"])])
    outputs = {"why": layers.Dense(5, name="a")(x), "because": layers.Dense(5, name="b")(x)}
    return keras.Model(inputs, outputs, name="dicts")


MODELS: dict[str, Callable[[], keras.Model]] = {
    make.__name__: make
    for make in (chains, chains_3d, channels_first, mixed_float16, list_of_inputs, dict_of_inputs)
}


def model_of(name: str) -> keras.Model:
    """One of MODELS, with the same weights each time."""
    keras.utils.set_random_seed(7)
    return MODELS[name]()


def samples_for(model: keras.Model, count: int = 40, seed: int = 0) -> Any:
    """Samples in the structure of the model's inputs."""
    random = np.random.default_rng(seed)
    return keras.tree.map_structure(
        lambda tensor: random.normal(size=(count, *tensor.shape[1:])).astype("float32"),
        input_structure(model),
    )
