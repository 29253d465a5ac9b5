"""Convolutions and pooling run, and answer alike, on every processor, also without oneDNN."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from lrf_core.export.saved_model import to_saved_model

# Settings that a class has no default for, and those under which convolutions take another path.
_NEEDED = {"filters": 4, "kernel_size": 3, "pool_size": 2, "output_size": 2, "rate": 0.5}
_VARIED: list[dict[str, Any]] = [
    {},
    {"padding": "same"},
    {"strides": 2},
    {"dilation_rate": 2},
    {"groups": 2},
    {"activation": "relu", "use_bias": False},
]
# Image augmentation is random, and no part of a model that is served.
_LAYERS = [
    kind
    for name, kind in sorted(vars(keras.layers).items())
    if inspect.isclass(kind)
    and kind.__name__ == name
    and "data_format" in inspect.signature(kind).parameters
    and not kind.__module__.startswith("keras.src.layers.preprocessing.image_preprocessing")
]


def _variants() -> list[Any]:
    return [
        pytest.param(kind, settings, id="-".join([kind.__name__, *map(str, settings.values())]))
        for kind in _LAYERS
        for settings in (_VARIED if "kernel_size" in inspect.signature(kind).parameters else [{}])
        if set(settings) <= set(inspect.signature(kind).parameters)
        # No layout of a dilated transposed convolution runs on CPUs.
        if not ("Transpose" in kind.__name__ and "dilation_rate" in settings)
    ]


def _rank(kind: type[keras.Layer]) -> int:
    return int(next((digit for digit in kind.__name__ if digit.isdigit()), "2"))


def _made(kind: type[keras.Layer], data_format: str, settings: dict[str, Any]) -> keras.Layer:
    if kind is keras.layers.STFTSpectrogram:
        settings = {"frame_length": 4, "frame_step": 2, "fft_length": 4}
    needed = {
        name: value
        for name, value in _NEEDED.items()
        if name in (parameters := inspect.signature(kind).parameters)
        and parameters[name].default is inspect.Parameter.empty
    }
    return kind(data_format=data_format, **needed, **settings)


def _images(kind: type[keras.Layer]) -> np.ndarray:
    """A batch in channels-first layout.

    No layer answers with as many columns as channels: Keras 3.15 takes a bias for one of columns
    there (keras/src/backend/tensorflow/numpy.py, `add`).
    """
    times = (2,) if "LSTM" in kind.__name__ else ()
    rank = 1 if kind is keras.layers.STFTSpectrogram else _rank(kind)
    return np.random.default_rng(0).normal(size=(2, *times, 4, *[11] * rank)).astype(np.float32)


def _to_last(kind: type[keras.Layer], values: Any) -> Any:
    return np.moveaxis(values, 2 if "LSTM" in kind.__name__ else 1, -1)


def _answers_and_gradients(layer: keras.Layer, images: np.ndarray) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        source = tf.constant(images)
        tape.watch(source)
        answers = layer(source)
        loss = tf.reduce_sum(answers**2)
    weights = [weight.value for weight in layer.trainable_weights]
    return answers, tape.gradient(loss, [source, *weights])


def _layouts(graph: Any) -> set[str]:
    """Of every operation in a traced graph and in the functions that it calls.

    Biases are added in either layout by TensorFlow itself.
    """
    nodes = [*graph.as_graph_def().node]
    nodes += [node for each in graph.as_graph_def().library.function for node in each.node_def]
    return {
        node.attr["data_format"].s.decode()
        for node in nodes
        if "data_format" in node.attr and not node.op.startswith("BiasAdd")
    }


@pytest.mark.parametrize(("kind", "settings"), _variants())
def test_a_layer_answers_and_learns_as_its_channels_last_twin(
    kind: type[keras.Layer], settings: dict[str, Any]
) -> None:
    images = _images(kind)
    first, last = (_made(kind, x, settings) for x in ("channels_first", "channels_last"))
    first.build(images.shape)
    last.build(_to_last(kind, images).shape)
    last.set_weights(first.get_weights())

    answers, gradients = _answers_and_gradients(first, images)
    expected, wanted = _answers_and_gradients(last, _to_last(kind, images))

    if answers.ndim > 2:  # a feature map, rather than one vector for each image
        answers = np.moveaxis(answers, 1, -1)
    if kind is keras.layers.Flatten:
        answers, expected = np.sort(answers), np.sort(expected)
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(_to_last(kind, gradients[0]), wanted[0], rtol=1e-3, atol=1e-3)
    for found, want in zip(gradients[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "settings"), _variants())
def test_no_operation_that_a_layer_runs_needs_channels_first_kernels(
    kind: type[keras.Layer], settings: dict[str, Any]
) -> None:
    images = _images(kind)
    layer = _made(kind, "channels_first", settings)
    layer.build(images.shape)
    traced = tf.function(lambda: _answers_and_gradients(layer, images)).get_concrete_function()
    assert not {layout for layout in _layouts(traced.graph) if layout.startswith("NC")}


def test_settings_and_weights_of_a_layer_are_those_of_keras() -> None:
    layer = keras.layers.Conv2D(6, 3, data_format="channels_first")
    layer.build((None, 4, 9, 9))
    assert layer.get_config()["data_format"] == "channels_first"
    assert layer.kernel.shape == (3, 3, 4, 6)
    assert layer(np.zeros((1, 4, 9, 9))).shape == (1, 6, 7, 7)


def test_the_default_data_format_of_keras_counts() -> None:
    before = keras.config.image_data_format()
    images = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 6)).astype(np.float32)
    expected = keras.ops.conv(images, kernel, data_format="channels_first")
    keras.config.set_image_data_format("channels_first")
    try:
        np.testing.assert_array_equal(keras.ops.conv(images, kernel), expected)
    finally:
        keras.config.set_image_data_format(before)


def test_a_saved_model_has_no_channels_first_operation(tmp_path: Any) -> None:
    inputs = keras.Input((3, 8, 8))
    here = {"data_format": "channels_first"}
    x = keras.layers.Conv2D(4, 3, **here)(inputs)
    x = keras.layers.MaxPooling2D(2, **here)(x)
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(2, **here)(x))
    to_saved_model(model, tmp_path)
    served = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    assert _layouts(served.graph) == {"NHWC"}


VOLUMES = {
    "conv": lambda volume: keras.layers.Conv3D(4, 1, strides=3, padding="same")(volume),
    "first": lambda volume: keras.layers.Conv3D(
        4, 1, strides=3, padding="same", data_format="channels_first"
    )(volume),
    "max": lambda volume: keras.layers.MaxPooling3D(1, 3, padding="same")(volume),
    "average": lambda volume: keras.layers.AveragePooling3D(1, (1, 3, 4), padding="same")(volume),
}


@pytest.mark.parametrize("sizes", [(6, 7, 8), (None, None, None)])
@pytest.mark.parametrize("operation", VOLUMES)
def test_windows_of_volumes_begin_at_the_edge(
    operation: str, sizes: tuple[int | None, ...]
) -> None:
    """Without oneDNN, TensorFlow shifts them if inputs lie behind the last window."""
    shape = (2, *sizes) if operation == "first" else (*sizes, 2)
    inputs = keras.Input(shape)
    model = keras.Model(inputs, VOLUMES[operation](inputs))
    volumes = np.random.default_rng(0).normal(size=(1, 6, 7, 8, 2)).astype(np.float32)
    steps = {"average": (1, 3, 4)}.get(operation, (3, 3, 3))
    expected = volumes[:, :: steps[0], :: steps[1], :: steps[2]]
    given, expected = (
        np.moveaxis(values, -1, 1) if operation == "first" else values
        for values in (volumes, expected)
    )
    if model.weights:
        axis = 1 if operation == "first" else -1
        kernel = model.layers[-1].kernel.numpy().reshape(2, 4)
        expected = np.moveaxis(np.moveaxis(expected, axis, -1) @ kernel, -1, axis)
    np.testing.assert_allclose(model(given), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [keras.layers.Conv3D, keras.layers.MaxPooling3D])
def test_no_operation_is_given_what_no_window_sees(kind: type[keras.Layer]) -> None:
    settings = {"strides": 3, "padding": "same"}
    layer = kind(4, 1, **settings) if kind is keras.layers.Conv3D else kind(1, **settings)
    volumes = tf.zeros((1, 6, 7, 9, 2))
    layer.build(volumes.shape)
    graph = tf.function(lambda: layer(volumes)).get_concrete_function().graph
    (used,) = [each for each in graph.get_operations() if each.type in ("Conv3D", "MaxPool3D")]
    assert used.inputs[0].shape == (1, 4, 7, 7, 2)


def test_pooling_without_strides_goes_by_windows() -> None:
    volumes = np.random.default_rng(0).normal(size=(1, 4, 4, 4, 2)).astype(np.float32)
    pooled = keras.ops.max_pool(volumes, 2, padding="same")
    np.testing.assert_array_equal(pooled, volumes.reshape(1, 2, 2, 2, 2, 2, 2, 2).max((2, 4, 6)))
