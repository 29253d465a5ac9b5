"""Similarity is taken behind bias, batch norm and activation, where these belong to the layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.exploration.feature_map import feature_maps
from lrf_core.models.consumers import consumers
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


def alive(model: keras.Model) -> keras.Model:
    """With statistics, scales and biases that do something."""
    rng = np.random.default_rng(1)
    for _, layer in walk(model):
        if isinstance(layer, layers_with_state):
            layer.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in layer.get_weights()])
    return model


layers_with_state = (layers.BatchNormalization, layers.PReLU)


def conv(name: str = "conv", **settings: object) -> keras.layers.Conv2D:
    settings = {"bias_initializer": "glorot_normal", **settings}
    return layers.Conv2D(4, 3, name=name, **settings)


def judged(model: keras.Model, path: str = "conv") -> np.ndarray:
    """The feature map of products of the layer's kernel, before its bias."""
    layer = dict(walk(model))[path]
    assert layer.activation is keras.activations.linear
    products = np.asarray(layer(IMAGES) - layer.bias, np.float64).reshape(-1, 4)
    return feature_maps(model, {"layer": layer})["layer"](products)


@pytest.mark.parametrize(
    "behind",
    [
        [layers.BatchNormalization(), layers.ReLU()],
        [layers.BatchNormalization(scale=False, center=False), layers.Activation("swish")],
        [layers.BatchNormalization(), layers.LeakyReLU(negative_slope=0.2)],
        [layers.BatchNormalization(), layers.PReLU(shared_axes=[1, 2])],
        [layers.BatchNormalization(), layers.Softmax()],
        [layers.BatchNormalization()],
        [layers.ELU()],
        [keras.ops.relu],
        [keras.ops.gelu],
    ],
)
def test_the_map_is_that_of_the_model(behind: list[object]) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = conv()(inputs)
    for one in behind:
        x = type(one).from_config(one.get_config())(x) if isinstance(one, keras.Layer) else one(x)
    model = alive(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    expected = np.asarray(keras.Model(inputs, x)(IMAGES)).reshape(-1, 4)
    np.testing.assert_allclose(judged(model), expected, atol=1e-5)


def test_an_activation_of_the_layer_itself() -> None:
    inputs = keras.Input((6,))
    layer = layers.Dense(4, activation="tanh", bias_initializer="glorot_normal")
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    rows = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    products = rows @ keras.ops.convert_to_numpy(layer.kernel)
    found = feature_maps(model, {"layer": layer})["layer"](products)
    np.testing.assert_allclose(found, np.asarray(layer(rows)), atol=1e-6)


def test_whatever_else_takes_the_output_sees_it_without_batch_norm() -> None:
    inputs = keras.Input((8, 8, 3))
    x = conv()(inputs)
    skipped = layers.BatchNormalization()(x)
    model = alive(keras.Model(inputs, layers.Add()([x, skipped])))
    answers = alive(keras.Model(inputs, [x, skipped]))
    expected = np.asarray(answers(IMAGES)[0]).reshape(-1, 4)
    np.testing.assert_allclose(judged(model), expected, atol=1e-6)
    np.testing.assert_allclose(judged(answers), expected, atol=1e-6)


def test_batch_norm_over_another_axis_is_not_taken() -> None:
    inputs = keras.Input((8, 8, 3))
    x = conv()(inputs)
    model = alive(keras.Model(inputs, layers.BatchNormalization(axis=1)(x)))
    np.testing.assert_allclose(
        judged(model), np.asarray(keras.Model(inputs, x)(IMAGES)).reshape(-1, 4), atol=1e-6
    )


def test_layers_in_nested_models_are_followed_out_of_them() -> None:
    keras.utils.set_random_seed(0)
    nested = keras.Sequential([keras.Input((8, 8, 3)), conv()], name="nested")
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(nested(inputs)))
    model = alive(keras.Model(inputs, layers.Flatten()(x)))
    expected = np.asarray(keras.Model(inputs, x)(IMAGES)).reshape(-1, 4)
    np.testing.assert_allclose(judged(model, "nested/conv"), expected, atol=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_a_shared_layer_is_followed_where_its_uses_agree(same: bool) -> None:
    keras.utils.set_random_seed(0)
    shared = conv(padding="same")
    norm = layers.BatchNormalization()
    first, second = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    one = norm(shared(first))
    other = (norm if same else layers.BatchNormalization())(shared(second))
    model = alive(keras.Model([first, second], layers.Add()([one, other])))
    rows = np.random.default_rng(0).normal(size=(9, 4))
    bias = keras.ops.convert_to_numpy(shared.bias)
    with_norm = np.asarray(norm((rows + bias).reshape(9, 1, 1, 4))).reshape(9, 4)
    found = feature_maps(model, {"conv": shared})["conv"](rows)
    np.testing.assert_allclose(found, with_norm if same else rows + bias, atol=1e-5)


def test_following_stops_where_paths_join() -> None:
    model = tiny_cnn()
    behind = consumers(model)

    def names(path: str) -> list[str]:
        (use,) = behind[id(model.get_layer(path))]
        return [type(operation).__name__ for operation in use]

    assert names("conv0") == ["BatchNormalization", "ReLU"]
    assert names("conv0b") == ["BatchNormalization"]
    assert names("answer") == []
    assert names("hidden") == ["Dense"]


def test_subclassed_models_with_operations() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(), layers.BatchNormalization()

        def call(self, x: object) -> object:
            return keras.ops.relu6(self.norm(self.conv(x)))

    own = Own()
    own(IMAGES)
    model = alive(to_functional(own))
    np.testing.assert_allclose(judged(model), np.asarray(own(IMAGES)).reshape(-1, 4), atol=1e-5)
