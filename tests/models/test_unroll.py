"""Subclassed models and layers are followed to the graph that their calls amount to."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lrf_core.errors import ModelError
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.models.splice import check_can_be_rebuilt, largest_difference
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional

layers = keras.layers
METHODS = ("tucker", "svd")


@keras.saving.register_keras_serializable("lrf_tests")
class Block(layers.Layer):
    """Layers as attributes and in a list, a branch for training, an operation between layers."""

    def __init__(self, filters: int, **settings: object) -> None:
        super().__init__(**settings)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.more = [layers.Conv2D(filters, 3, padding="same", name="second")]

    def call(self, x: object, training: bool | None = None) -> object:
        y = keras.ops.relu(self.norm(self.conv(x), training=training))
        for layer in self.more:
            y = layer(y)
        return x + y


@keras.saving.register_keras_serializable("lrf_tests")
class Net(keras.Model):
    def __init__(self, classes: int = 4, **settings: object) -> None:
        super().__init__(**settings)
        self.classes = classes
        self.stem = layers.Conv2D(8, 3, name="stem")
        self.blocks = {"one": Block(8, name="one"), "two": Block(8, name="two")}
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(classes, name="head")

    def call(self, inputs: object, training: bool | None = None) -> object:
        x = self.stem(inputs / 255.0)
        for block in self.blocks.values():
            x = block(x, training=training)
        return self.head(self.pool(x))


SAMPLES = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)


@pytest.fixture
def net() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = Net()
    model(SAMPLES)
    return model


def test_graphs_are_taken_as_they_are() -> None:
    inputs = keras.Input((4,))
    functional = keras.Model(inputs, layers.Dense(3)(inputs))
    sequential = keras.Sequential([inputs, layers.Dense(3)])
    assert to_functional(functional) is functional
    assert to_functional(sequential) is sequential


def test_a_subclassed_model_becomes_a_graph_of_the_same_layers(net: keras.Model) -> None:
    graph = to_functional(net)
    assert largest_difference(net, graph, SAMPLES) < 1e-6
    assert {id(weight) for weight in graph.weights} == {id(weight) for weight in net.weights}
    assert {path for path, layer in walk(graph) if layer.weights} == {
        "stem",
        *(f"{block}/{name}" for block in ("one", "two") for name in ("conv", "norm", "second")),
        "head",
    }


def test_it_is_the_same_graph_each_time(net: keras.Model) -> None:
    assert model_digest(to_functional(net)) == model_digest(to_functional(net))


def test_training_reaches_the_layers(net: keras.Model) -> None:
    graph = to_functional(net)
    before = keras.ops.convert_to_numpy(net.blocks["one"].norm.moving_mean).copy()
    graph(SAMPLES, training=True)
    assert not np.allclose(before, keras.ops.convert_to_numpy(net.blocks["one"].norm.moving_mean))


def test_every_convolution_and_dense_layer_in_it_can_be_replaced(net: keras.Model) -> None:
    graph = to_functional(net)
    records = take_inventory(graph, METHODS)
    eligible = [record.name for record in records if record.methods]
    assert len(eligible) == 6
    check_can_be_rebuilt(net, graph, eligible, SAMPLES)


def test_a_file_of_a_registered_class_gives_a_graph_that_needs_no_class(
    net: keras.Model, tmp_path: Path
) -> None:
    net.save(tmp_path / "net.keras")
    graph = load_model(tmp_path / "net.keras")
    assert {type(layer).__module__.split(".")[0] for _, layer in walk(graph)} == {"keras"}
    again = load_model(save_model(graph, tmp_path / "graph"))
    assert model_digest(again) == model_digest(graph)
    assert largest_difference(net, again, SAMPLES) < 1e-6


@pytest.mark.parametrize("sequential", [True, False])
def test_subclassed_layers_in_a_graph_are_followed(sequential: bool) -> None:
    inputs = keras.Input((8, 8, 8))
    parts = [Block(8, name="one"), Block(8, name="two"), layers.Flatten(), layers.Dense(3)]
    if sequential:
        model = keras.Sequential([inputs, *parts])
    else:
        outputs = inputs
        for part in parts:
            outputs = part(outputs)
        model = keras.Model(inputs, outputs)
    graph = to_functional(model)
    assert "two/second" in dict(walk(graph))
    samples = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype(np.float32)
    assert largest_difference(model, graph, samples) < 1e-6


def test_several_inputs_in_a_dict() -> None:
    class Two(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.numbers = layers.Conv2D(4, 3), layers.Dense(4)

        def call(self, inputs: dict[str, object]) -> object:
            pooled = keras.ops.mean(self.image(inputs["image"]), axis=(1, 2))
            return {"answer": pooled + self.numbers(inputs["numbers"])}

    samples = {"image": SAMPLES, "numbers": np.ones((4, 5), np.float32)}
    model = Two()
    model(samples)
    graph = to_functional(model)
    assert set(graph.input) == {"image", "numbers"}
    assert largest_difference(model, graph, samples) < 1e-6


def test_a_frozen_layer_stays_frozen() -> None:
    inputs = keras.Input((8, 8, 8))
    block = Block(8, name="one")
    model = keras.Model(inputs, block(inputs))
    block.trainable = False
    assert to_functional(model).trainable_weights == []


def test_a_layer_with_code_that_cannot_be_followed_stays() -> None:
    class Doubled(layers.Layer):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings)
            self.dense = layers.Dense(4)

        def call(self, x: object) -> object:
            return tf.math.abs(self.dense(x))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3, name="head")(Doubled(name="inner")(inputs)))
    records = {record.name: record for record in take_inventory(to_functional(model), METHODS)}
    assert records["head"].methods
    assert "custom layer" in records["inner"].reason


def subclassed(call: object, **attributes: keras.Layer) -> keras.Model:
    class Custom(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="custom")
            for name, layer in attributes.items():
                setattr(self, name, layer)

    Custom.call = call
    return Custom()


def test_code_that_cannot_be_followed_is_refused() -> None:
    def call(self: keras.Model, x: object) -> object:
        return tf.nn.relu(self.dense(x))

    model = subclassed(call, dense=layers.Dense(3))
    model(np.ones((2, 4), np.float32))
    with pytest.raises(ModelError, match=r"'custom' \(Custom\).*cannot be followed.*keras.ops"):
        to_functional(model)


def test_a_branch_on_values_is_seen_in_the_answers() -> None:
    def call(self: keras.Model, x: object) -> object:
        # The batch size is not known when the call is followed.
        return self.dense(x) * (2.0 if x.shape[0] == 4 else 1.0)

    model = subclassed(call, dense=layers.Dense(3))
    samples = np.ones((4, 5), np.float32)
    model(samples)
    graph = to_functional(model)
    with pytest.raises(ModelError, match="branches on values"):
        check_can_be_rebuilt(model, graph, [], samples)


def test_a_model_with_weights_of_its_own_is_refused() -> None:
    class Scaled(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def build(self, shape: object) -> None:
            self.scale = self.add_weight(name="scale")
            self.dense.build(shape)

        def call(self, x: object) -> object:
            return self.dense(x) * self.scale

    model = Scaled()
    model(np.ones((2, 4), np.float32))
    with pytest.raises(ModelError, match=r"weights of its own \('.*scale'\)"):
        to_functional(model)


def test_two_arguments_are_refused() -> None:
    def call(self: keras.Model, a: object, b: object) -> object:
        return self.dense(a) + self.dense(b)

    model = subclassed(call, dense=layers.Dense(3))
    model(np.ones((2, 4), np.float32), np.ones((2, 4), np.float32))
    with pytest.raises(ModelError, match="called with a, b; give its call"):
        to_functional(model)


def test_a_model_that_was_never_called_is_refused() -> None:
    with pytest.raises(ModelError, match="is not built; call it once"):
        to_functional(Net())


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="Dense is not a Keras model"):
        to_functional(layers.Dense(3))


def test_the_name_of_a_layer_that_tensorflow_refuses_is_named() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="weiß nicht:0")])

    with pytest.raises(ModelError, match="layer 'weiß nicht:0' has a name that TensorFlow refuses"):
        to_functional(model)
