"""Models as people build them: several inputs and outputs, nested, shared, wrapped, ..."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from lrf_core.errors import ModelError, SpliceError
from lrf_core.models import splice as splicing
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import check_model, load_model, model_digest, save_model
from lrf_core.models.splice import (
    check_can_be_rebuilt,
    check_same_answers,
    largest_difference,
    splice,
)
from lrf_core.models.structure import input_structure
from lrf_core.models.trace import blank_inputs, walk

layers = keras.layers
METHODS = ("tucker", "svd")


def dict_of_inputs_and_outputs() -> keras.Model:
    image, numbers = keras.Input((12, 12, 3), name="image"), keras.Input((5,), name="numbers")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, name="conv")(image))
    both = layers.Concatenate()([x, layers.Dense(6, activation="relu", name="side")(numbers)])
    outputs = {
        "label": layers.Dense(4, activation="softmax", name="label")(both),
        "age": layers.Dense(2, name="age")(both),
    }
    return keras.Model({"image": image, "numbers": numbers}, outputs)


def list_of_inputs_and_outputs() -> keras.Model:
    first, second = keras.Input((12, 12, 3)), keras.Input((5,))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(first))
    both = layers.Concatenate()([x, layers.Dense(6)(second)])
    return keras.Model([first, second], [layers.Dense(4)(both), layers.Dense(3)(both)])


def block_in_two_places() -> keras.Model:
    """One nested model, called twice in a row, and nested in two other models."""
    inputs = keras.Input((8, 8, 6))
    conv = layers.Conv2D(6, 3, padding="same", name="conv")
    block = keras.Model(inputs, layers.Add()([inputs, conv(inputs)]), name="block")

    def around(name: str) -> keras.Model:
        inputs = keras.Input((8, 8, 6))
        return keras.Model(inputs, layers.ReLU()(block(inputs)), name=name)

    inputs = keras.Input((8, 8, 6))
    x = around("second")(around("first")(block(block(inputs))))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def layer_in_two_models() -> keras.Model:
    conv = layers.Conv2D(6, 3, padding="same", name="conv")

    def around(name: str) -> keras.Model:
        inputs = keras.Input((8, 8, 6))
        return keras.Model(inputs, layers.ReLU()(conv(inputs)), name=name)

    inputs = keras.Input((8, 8, 6))
    x = around("second")(around("first")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def preprocessing() -> keras.Model:
    words = layers.StringLookup(output_mode="one_hot")
    words.adapt(np.array(["a", "b", "c"]))
    scale = layers.Normalization()
    scale.adapt(np.random.default_rng(0).uniform(10, 60, (50, 16, 16, 3)).astype(np.float32))
    image = keras.Input((16, 16, 3), name="image")
    word = keras.Input((1,), dtype="string", name="word")
    kind = keras.Input((1,), dtype="int32", name="kind")
    x = layers.RandomRotation(0.1)(layers.RandomFlip()(scale(image)))
    x = layers.Rescaling(1 / 3)(layers.Resizing(12, 12)(x))
    x = layers.Flatten()(layers.Conv2D(8, 3, name="conv")(x))
    kinds = layers.CategoryEncoding(4, output_mode="one_hot")(kind)
    x = layers.Concatenate()([x, words(word), kinds])
    outputs = layers.Dense(4, activation="softmax", name="head")(x)
    return keras.Model({"image": image, "kind": kind, "word": word}, outputs)


def wrappers() -> keras.Model:
    inputs = keras.Input((3, 12, 12, 3))
    x = layers.TimeDistributed(layers.Conv2D(6, 3), name="each_frame")(inputs)
    x = layers.TimeDistributed(layers.Flatten())(x)
    x = layers.TimeDistributed(layers.Dense(8), name="each_step")(x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both_ways")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


def model_in_a_wrapper() -> keras.Model:
    frame = keras.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(frame))
    every_frame = layers.TimeDistributed(keras.Model(frame, x), name="each_frame")
    inputs = keras.Input((3, 12, 12, 3))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(every_frame(inputs))))


def operations_between_layers() -> keras.Model:
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = (keras.ops.relu(x + inputs) * 2.0)[:, ::2]
    return keras.Model(inputs, layers.Dense(3, name="head")(keras.ops.mean(x, axis=(1, 2))))


def sequential_built_by_a_call() -> keras.Model:
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    model(np.zeros((2, 8, 8, 3), np.float32))
    return model


def map_of_any_size() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    return keras.Model(inputs, layers.Conv2D(5, 1, activation="softmax", name="classes")(x))


def frozen_base() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(inputs))
    base = keras.Model(inputs, x, name="base")
    base.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(base(inputs, training=False))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def activations() -> keras.Model:
    def wave(x: object) -> object:
        return keras.ops.sin(x)

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation=wave, name="function")(inputs)
    x = layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.3), name="layer")(x)
    x = layers.Conv2D(4, 3, activation=layers.PReLU(), name="layer_with_weights")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


MODELS = [
    dict_of_inputs_and_outputs,
    list_of_inputs_and_outputs,
    block_in_two_places,
    layer_in_two_models,
    preprocessing,
    wrappers,
    model_in_a_wrapper,
    operations_between_layers,
    sequential_built_by_a_call,
    map_of_any_size,
    frozen_base,
    activations,
]
Make = Callable[[], keras.Model]


def samples_for(model: keras.Model, count: int = 4) -> object:
    """Random values in the structure of the model's inputs."""
    random = np.random.default_rng(1)

    def values(tensor: object, blank: np.ndarray) -> np.ndarray:
        shape = (count, *blank.shape[1:])
        if tensor.dtype == "string":
            return random.choice(["a", "b", "c", "other"], shape)
        if tensor.dtype == "int32":
            return random.integers(0, 4, shape)
        return random.normal(size=shape).astype(np.float32)

    blanks = keras.tree.flatten(blank_inputs(model))
    arrays = [values(*pair) for pair in zip(model.inputs, blanks, strict=True)]
    return keras.tree.pack_sequence_as(input_structure(model), arrays)


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest) -> keras.Model:
    keras.utils.set_random_seed(0)
    return request.param()


def test_a_copy_answers_the_same_and_shares_nothing(model: keras.Model) -> None:
    copy = splice(model, {})
    assert largest_difference(model, copy, samples_for(model)) == 0.0
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    assert [x.shape for x in copy.outputs] == [x.shape for x in model.outputs]
    assert [weight.shape for weight in copy.trainable_weights] == [
        weight.shape for weight in model.trainable_weights
    ]


def test_every_eligible_layer_can_be_replaced(model: keras.Model) -> None:
    records = take_inventory(model, METHODS)
    eligible = [record.name for record in records if record.methods]
    assert eligible
    check_can_be_rebuilt(model, model, eligible, samples_for(model))


def test_the_inventory_adds_up_to_the_model(model: keras.Model) -> None:
    records = take_inventory(model, METHODS)
    total = model_cost(model)
    assert sum(record.cost.params for record in records) == total.params
    assert sum(record.cost.macs for record in records) == total.macs


@pytest.mark.parametrize(
    # Keras itself loads neither what is nested in two models nor unregistered functions.
    "make",
    [m for m in MODELS if m not in (block_in_two_places, layer_in_two_models, activations)],
)
def test_a_copy_can_be_saved_and_loaded(make: Make, tmp_path: Path) -> None:
    model = make()
    copy = splice(model, {})
    loaded = load_model(save_model(copy, tmp_path))
    assert model_digest(loaded) == model_digest(copy)
    assert largest_difference(model, loaded, samples_for(model)) == 0.0


def chain_for(layer: keras.Layer) -> list[keras.Layer]:
    """Two layers that compute what one does, with its weights to be assigned."""
    same = type(layer).from_config(layer.get_config())
    return [layers.Identity(name=f"{layer.name}_before"), same]


def test_outputs_keep_their_names_when_their_layers_are_replaced() -> None:
    model = dict_of_inputs_and_outputs()
    spliced = splice(model, {"age": chain_for(model.get_layer("age"))})
    assert spliced.output_names == model.output_names
    assert set(spliced.output) == {"label", "age"}
    assert spliced.get_layer("age").output is spliced.output["age"]


def test_a_layer_in_two_models_is_replaced_once() -> None:
    model = layer_in_two_models()
    paths = [path for path, layer in walk(model) if layer.name == "conv"]
    assert len(paths) == 1
    spliced = splice(model, {paths[0]: chain_for(dict(walk(model))[paths[0]])})
    first, second = (spliced.get_layer(name).get_layer("conv") for name in ("first", "second"))
    assert first is second
    assert spliced.count_params() == model.count_params()


def test_in_a_very_deep_model_a_chain_adds_no_depth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keras cannot load graphs of about a thousand operations in a row."""
    monkeypatch.setattr(splicing, "DEEPEST", 5)
    model = operations_between_layers()
    spliced = splice(model, {"conv": chain_for(model.get_layer("conv"))})
    assert len(spliced.layers) == len(model.layers)
    assert isinstance(spliced.get_layer("conv"), keras.Sequential)
    spliced.get_layer("conv").layers[-1].set_weights(model.get_layer("conv").get_weights())
    loaded = load_model(save_model(spliced, tmp_path))
    assert model_digest(loaded) == model_digest(spliced)
    assert largest_difference(model, loaded, samples_for(model)) < 1e-6


def test_frozen_layers_stay_frozen() -> None:
    copy = splice(frozen_base(), {})
    assert not copy.get_layer("base").trainable
    assert not copy.get_layer("base").get_layer("conv").trainable
    assert copy.trainable
    assert len(copy.trainable_weights) == 2


def test_adapted_statistics_and_vocabularies_are_carried_over() -> None:
    model = preprocessing()
    copy = splice(model, {})
    (words,) = (x for x in copy.layers if isinstance(x, layers.StringLookup))
    (scale,) = (x for x in copy.layers if isinstance(x, layers.Normalization))
    assert words.get_vocabulary()[1:] == ["c", "b", "a"]
    assert float(np.min(scale.mean)) > 30


def test_a_digest_tells_vocabularies_apart() -> None:
    digests = set()
    for vocabulary in (["a", "b"], ["a", "c"]):
        words = layers.StringLookup(output_mode="one_hot")
        words.adapt(np.array(vocabulary))
        inputs = keras.Input((1,), dtype="string", name="word")
        digests.add(model_digest(keras.Model(inputs, words(inputs), name="words")))
    assert len(digests) == 2


def test_what_is_inside_other_layers_stays_and_says_so() -> None:
    reasons = {record.name: record.reason for record in take_inventory(wrappers(), METHODS)}
    assert "inside TimeDistributed: Conv2D" in reasons["each_frame"]
    assert "inside TimeDistributed: Dense" in reasons["each_step"]
    assert "recurrent layer" in reasons["both_ways"]
    assert "attention" in reasons["attention"]
    assert reasons["head"] == ""


def test_an_activation_with_weights_of_its_own_stays() -> None:
    reasons = {record.name: record.reason for record in take_inventory(activations(), METHODS)}
    assert reasons["function"] == reasons["layer"] == ""
    assert "its activation PReLU has weights" in reasons["layer_with_weights"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Conv2D(8, 3, groups=2), "grouped convolution (2 groups)"),
        (layers.DepthwiseConv2D(3), "depthwise convolution"),
        (layers.SeparableConv2D(8, 3), "separable convolution"),
        (layers.Conv2DTranspose(8, 3), "transposed convolution"),
        (layers.EinsumDense("abcd,de->abce", (None, None, 6)), "product over axes of its own"),
        (layers.BatchNormalization(), "BatchNormalization has no kernel"),
        (layers.Conv2D(1, 1), "rank 1 already"),
        (layers.Conv2D(8, 3, kernel_initializer="zeros"), "the kernel is all zeros"),
    ],
)
def test_layers_that_stay_say_why(layer: keras.Layer, reason: str) -> None:
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))
    (record,) = take_inventory(model, METHODS)
    assert reason in record.reason
    assert record.methods == ()


def test_a_dense_layer_of_one_unit_stays() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    (record,) = take_inventory(model, METHODS)
    assert "rank 1 already" in record.reason


def test_a_kernel_that_is_not_finite_is_refused() -> None:
    model = sequential_built_by_a_call()
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel).copy()
    kernel[0, 0, 0, 0] = np.nan
    model.layers[0].kernel.assign(kernel)
    with pytest.raises(ModelError, match=r"weight '.*kernel' holds NaN"):
        check_model(model, "model")


def test_a_model_that_is_random_at_inference_is_refused() -> None:
    inputs = keras.Input((6,))
    noise = keras.random.SeedGenerator(0)
    x = layers.Dense(4)(inputs)
    model = keras.Model(inputs, x + keras.random.normal((4,), seed=noise))
    check_can_be_rebuilt(model, model, [], samples_for(model))  # the noise became a constant

    class Noisy(layers.Layer):
        def call(self, x: object) -> object:
            return x + keras.random.normal((4,))

    model = keras.Model(inputs, Noisy()(x))
    with pytest.raises(ModelError, match="random at inference"):
        check_can_be_rebuilt(model, model, [], samples_for(model))


def test_a_layer_that_cannot_be_made_again_is_named() -> None:
    class Scaled(layers.Layer):
        def __init__(self, by: object, **settings: object) -> None:
            super().__init__(**settings)
            self.by = by

        def call(self, x: object) -> object:
            return x * float(str(self.by))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, Scaled(Path("2"), name="twice")(inputs))
    with pytest.raises(ModelError, match=r"layer 'twice' \(Scaled\) cannot be made again"):
        splice(model, {})


def test_a_difference_in_any_output_is_seen() -> None:
    model = list_of_inputs_and_outputs()
    other = splice(model, {})
    other.layers[-1].bias.assign(np.ones(3))
    with pytest.raises(SpliceError, match="differs from what its factors say"):
        check_same_answers(model, other, samples_for(model))
