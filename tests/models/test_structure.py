"""Walking, counting and splicing: models of every shape that people build."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lrf_core import methods
from lrf_core.artifacts import Cost
from lrf_core.errors import SpliceError
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import geometry_of, take_inventory
from lrf_core.models.splice import check_same_answers, splice
from lrf_core.models.trace import walk

layers = keras.layers


def block(name: str) -> keras.Model:
    inputs = keras.Input((8, 8, 6))
    outputs = layers.Conv2D(6, 3, padding="same", activation="relu", name="inner")(inputs)
    return keras.Model(inputs, layers.Add()([inputs, outputs]), name=name)


def nested() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    outer = keras.Sequential([keras.Input((8, 8, 6)), block("deep")], name="outer")
    x = layers.GlobalAveragePooling2D()(outer(block("flat")(x)))
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def shared() -> keras.Model:
    """One convolution used twice, at two sizes."""
    conv = layers.Conv2D(3, 3, padding="same", name="twice")
    inputs = keras.Input((8, 8, 3))
    small = layers.MaxPooling2D()(inputs)
    pooled = [layers.GlobalAveragePooling2D()(conv(x)) for x in (inputs, small)]
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Concatenate()(pooled)))


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="pixels"),
            layers.Conv2D(6, 3, name="conv"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )


def one_dimensional() -> keras.Model:
    inputs = keras.Input((20, 3))
    x = layers.Conv1D(6, 5, padding="causal", name="conv")(inputs)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


MODELS = [nested, shared, sequential, one_dimensional]


def randomized(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, size=w.shape) for w in model.get_weights()])
    return model


def samples(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype(np.float32)


@pytest.mark.parametrize("make", MODELS)
def test_a_copy_without_chains_answers_the_same(make: type) -> None:
    model = randomized(make())
    copy = splice(model, {})
    np.testing.assert_array_equal(
        copy.predict_on_batch(samples(model)), model.predict_on_batch(samples(model))
    )
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    assert {path for path, _ in walk(copy)} == {path for path, _ in walk(model)}


@pytest.mark.parametrize("make", MODELS)
def test_every_convolution_and_dense_layer_can_be_replaced(make: type) -> None:
    """By a layer of the same settings and weights: the answers stay."""
    model = randomized(make())
    chains = {
        path: [type(layer).from_config({**layer.get_config(), "name": f"{layer.name}_new"})]
        for path, layer in walk(model)
        if isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.Dense))
    }
    spliced = splice(model, chains)
    for path, layer in walk(model):
        if path in chains:
            chains[path][0].set_weights(layer.get_weights())
    check_same_answers(model, spliced, samples(model))
    assert spliced.count_params() == model.count_params()
    found = dict(walk(spliced))
    assert all(found[path] is chain[-1] for path, chain in chains.items())


def test_a_shared_layer_becomes_one_shared_chain() -> None:
    model = randomized(shared())
    records = {record.name: record for record in take_inventory(model, ("tucker",))}
    (layout,) = methods.get("tucker").layouts(geometry_of(records["twice"]))
    chain = layout.chain(model.get_layer("twice"), (2, 2))
    spliced = splice(model, {"twice": chain})
    assert spliced.count_params() - model.count_params() == (
        (3 * 2 + 9 * 2 * 2 + 2 * 3) - 9 * 3 * 3
    )


def test_unknown_layers_are_named() -> None:
    with pytest.raises(SpliceError, match="no layer named nowhere"):
        splice(sequential(), {"nowhere": []})


def test_a_model_that_answers_otherwise_is_refused() -> None:
    model = randomized(sequential())
    other = splice(model, {})
    other.get_layer("conv").bias.assign(np.zeros(6))
    with pytest.raises(SpliceError, match="differs from what its factors say"):
        check_same_answers(model, other, samples(model))


def test_paths_go_through_nested_models() -> None:
    assert {path for path, layer in walk(nested()) if layer.weights} == {
        "stem",
        "flat/inner",
        "outer/deep/inner",
        "head",
    }


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (layers.Conv2D(5, 3, strides=2), (9, 9, 4), 16 * 9 * 4 * 5),
        (layers.Conv2D(6, 3, groups=2), (9, 9, 4), 49 * 9 * 2 * 6),
        (layers.DepthwiseConv2D(3), (9, 9, 4), 49 * 9 * 4),
        (layers.SeparableConv2D(5, 3), (9, 9, 4), 49 * (9 * 4 + 4 * 5)),
        (layers.Conv2DTranspose(5, 2, strides=2), (4, 4, 3), 16 * 4 * 3 * 5),
        (layers.Conv1D(5, 3, padding="causal"), (10, 4), 10 * 3 * 4 * 5),
        (layers.Conv3D(2, 3, data_format="channels_first"), (4, 5, 5, 5), 27 * 27 * 4 * 2),
        (layers.Dense(7), (5, 4), 5 * 4 * 7),
        (layers.EinsumDense("abc,cd->abd", output_shape=(5, 7)), (5, 4), 5 * 4 * 7),
        (layers.EinsumDense("...c,cd->...d", output_shape=(7,)), (3, 5, 4), 15 * 4 * 7),
        (layers.TimeDistributed(layers.Dense(7)), (5, 4), 5 * 4 * 7),
        (layers.BatchNormalization(), (4, 4, 3), 0),
    ],
)
def test_macs_are_those_of_the_loops(layer: keras.Layer, shape: tuple[int, ...], macs: int) -> None:
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    assert model_cost(model) == Cost(params=model.count_params(), macs=macs)


def test_open_sizes_are_taken_from_the_sample() -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(inputs))
    assert model_cost(model, (10, 12, 3)).macs == 10 * 12 * 9 * 3 * 2


def test_inventory_says_why_a_layer_stays() -> None:
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3, name="zeros", kernel_initializer="zeros", padding="same")(x)
    x = layers.Conv2D(6, 1, name="pointwise")(x)
    x = layers.Conv2D(6, 3, name="conv", padding="same")(x)
    x = layers.Conv2D(1, 1, name="narrow")(x)
    model = keras.Model(inputs, layers.Dense(1, name="single")(layers.Flatten()(x)))
    found = {record.name: record for record in take_inventory(model, ("tucker", "svd"))}
    assert found["conv"].methods == ("tucker",)
    assert found["pointwise"].methods == ("svd",)
    assert "grouped convolution (2 groups)" in found["grouped"].reason
    assert "depthwise convolution" in found["depthwise"].reason
    assert "BatchNormalization has no kernel" in found["norm"].reason
    assert "all zeros" in found["zeros"].reason
    assert "one channel in or out" in found["narrow"].reason
    assert "one channel in or out" in found["single"].reason
    assert sum(record.share for record in found.values()) == pytest.approx(1.0)


def test_inventory_adds_up_to_the_model() -> None:
    for make in MODELS:
        model = make()
        records = take_inventory(model, ("tucker", "svd"))
        total = model_cost(model)
        assert sum(record.cost.params for record in records) == total.params
        assert sum(record.cost.macs for record in records) == total.macs


def test_a_layer_that_no_factorization_makes_smaller_stays() -> None:
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Conv2D(2, (2, 1), use_bias=False, name="conv")(inputs))
    (record,) = take_inventory(model, ("tucker", "cp", "tensor_train"))
    assert record.methods == ()
    assert "as many parameters" in record.reason
