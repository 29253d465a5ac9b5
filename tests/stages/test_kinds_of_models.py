"""Models of every kind through the stages: several inputs and outputs, subclassed, no classes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_data

from lrf_core.data import Data, Split
from lrf_core.errors import ModelError
from lrf_core.models.load import load_model, save_model
from lrf_core.models.trace import is_graph
from lrf_core.run.workflow import run_spec
from lrf_core.spec import DecomposeSpec, ExploreSpec, FinetuneSpec, GateSpec, Goal, Spec
from lrf_core.stages import analyze, decompose, explore, finetune, validate

layers = keras.layers
SETTINGS = ExploreSpec(methods=("tucker", "svd"), samples=64, batch_size=32, ranks_per_mode=4)
HALF = Goal(params_reduction=0.4)


def factorized(model: keras.Model, data: Data) -> keras.Model:
    """Through analyze, explore and decompose, checking what each of them promises."""
    analysis = analyze(model, data, settings=SETTINGS)
    space = explore(model, data, analysis, settings=SETTINGS)
    plan, small = decompose(model, data, [space], HALF, settings=DecomposeSpec(minimize="error"))
    assert plan.after.params == small.count_params()
    assert plan.after.params < 0.6 * model.count_params()
    return small


def unlabelled(samples: object) -> Data:
    count = len(keras.tree.flatten(samples)[0])
    split = Split.of(samples)
    digest = hashlib.sha256(b"".join(x.tobytes() for x in keras.tree.flatten(samples))).hexdigest()
    half = count // 2
    return Data(split.take(range(half)), split.take(range(half, count)), (), "here", digest)


def validate_failures(model: keras.Model, candidate: keras.Model, data: Data) -> set[str]:
    gate = GateSpec(max_accuracy_drop=100.0, latency_repeats=3)
    verdict = validate(model, candidate, data, gate=gate)
    return {check.name for check in verdict.checks if not check.passed}


class Net(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="net")
        self.convs = [layers.Conv2D(16, 3, padding="same", name=f"conv{i}") for i in range(2)]
        self.head = layers.Dense(4, activation="softmax", name="head")

    def call(self, inputs: object) -> object:
        x = inputs / 127.5 - 1.0
        for conv in self.convs:
            x = keras.ops.relu(conv(x))
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def test_a_subclassed_model_goes_all_the_way(tmp_path: Path) -> None:
    """Its class is not needed to load what comes out."""
    data = tiny_data(train=128, test=128, noise=20.0)
    keras.utils.set_random_seed(0)
    model = Net()
    samples, labels = data.train.arrays()
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(samples.astype(np.float32), labels, epochs=25, batch_size=32, verbose=0)
    small = factorized(model, data)
    assert is_graph(small)
    candidate, _ = finetune(small, model, data, settings=FinetuneSpec(epochs=1))
    assert not validate_failures(model, candidate, data)
    assert type(load_model(save_model(candidate, tmp_path))).__module__.startswith("keras.")


def test_two_inputs_and_one_answer() -> None:
    keras.utils.set_random_seed(0)
    image, numbers = keras.Input((16, 16, 3), name="image"), keras.Input((5,), name="numbers")
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(layers.Rescaling(1 / 255)(image))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(8)(numbers)])
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    outputs = layers.Dense(4, activation="softmax", name="head")(x)
    model = keras.Model({"image": image, "numbers": numbers}, outputs)
    images, labels = tiny_arrays(128)
    samples = {"image": images, "numbers": np.eye(5, dtype=np.float32)[labels]}
    split = Split.of(samples, labels)
    data = Data(split.take(range(96)), split.take(range(96, 128)), ("a", "b", "c", "d"), "", "0")
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(samples, labels, epochs=5, verbose=0)
    small = factorized(model, data)
    candidate, record = finetune(small, model, data, settings=FinetuneSpec(epochs=1))
    assert record.samples > 0
    assert candidate.input.keys() == model.input.keys()
    assert not validate_failures(model, candidate, data) - {"accuracy_drop"}


def test_a_channels_first_model_stays_one() -> None:
    """On every processor: see `lrf_core.models.windows`."""
    keras.utils.set_random_seed(0)
    images, labels = tiny_arrays(192, noise=30.0)
    images = np.moveaxis(images, -1, 1).copy()
    split = Split.of(images, labels)
    data = Data(split.take(range(128)), split.take(range(128, 192)), (), "here", "f" * 64)
    here = {"data_format": "channels_first"}
    inputs = keras.Input((3, 16, 16))
    x = layers.Conv2D(12, 3, padding="same", name="conv", **here)(layers.Rescaling(1 / 255)(inputs))
    x = layers.ReLU()(layers.BatchNormalization(axis=1)(x))
    x = layers.DepthwiseConv2D(3, strides=2, name="depthwise", **here)(x)
    x = layers.Conv2D(24, 3, strides=2, name="wide", **here)(x)
    x = layers.GlobalAveragePooling2D(**here)(layers.AveragePooling2D(2, **here)(x))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="answer")(x))
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=20, verbose=0)
    small = factorized(model, data)
    candidate, _ = finetune(small, model, data, settings=FinetuneSpec(epochs=1))
    assert not validate_failures(model, candidate, data) - {"accuracy_drop"}
    formats = {layer.data_format for layer in candidate.layers if hasattr(layer, "data_format")}
    assert formats == {"channels_first"}
    kept = [layer for layer in candidate.layers if layer.name == "depthwise"]
    assert [layer.kernel.shape for layer in kept] == [(3, 3, 12, 1)]
    answers = [tuple(map(int, candidate(images[:2]).shape)), candidate.input_shape]
    assert answers == [(2, 4), model.input_shape]


def heads(**outputs: keras.Layer) -> keras.Model:
    """An image model with an output for each layer given, under its name."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255)(inputs)
    for i in range(3):
        x = layers.Conv2D(24, 3, padding="same", activation="relu", name=f"conv{i}")(x)
    return keras.Model(inputs, {name: layer(x) for name, layer in outputs.items()})


@pytest.mark.parametrize(
    "outputs",
    [
        {"map": lambda: layers.Conv2D(5, 1, activation="softmax", name="map")},
        {"boxes": lambda: layers.Conv2D(4, 3, name="boxes")},
        {
            "heat": lambda: layers.Conv2D(1, 3, activation="sigmoid", name="heat"),
            "size": lambda: layers.Conv2D(2, 3, name="size"),
        },
    ],
    ids=["segmentation", "boxes", "detection"],
)
def test_outputs_that_are_no_classes(outputs) -> None:
    model = heads(**{name: make() for name, make in outputs.items()})
    data = unlabelled(tiny_arrays(160)[0])
    small = factorized(model, data)
    assert small.output.keys() == model.output.keys()
    assert analyze(model, data, settings=SETTINGS).baseline.accuracy is None


def test_fine_tuning_refuses_several_outputs() -> None:
    model = heads(
        map=layers.Conv2D(5, 1, name="map"),
        label=keras.Sequential([layers.Flatten(), layers.Dense(4)]),
    )
    with pytest.raises(ModelError, match="has 2 outputs; fine-tuning trains models with one"):
        finetune(model, model, tiny_data(train=64, test=16))


def test_the_whole_way_refuses_several_outputs_at_once(tmp_path: Path) -> None:
    model = heads(map=layers.Conv2D(5, 1, name="map"), more=layers.Conv2D(2, 1, name="more"))
    save_model(model, tmp_path / "model.keras")
    spec = Spec(model=str(tmp_path / "model.keras"), data="none", out=str(tmp_path / "out"))
    with pytest.raises(ModelError, match="has 2 outputs; fine-tuning and the gate"):
        run_spec(spec)


def test_a_model_that_answers_otherwise_when_rebuilt_is_refused_at_once() -> None:
    class Noisy(layers.Layer):
        def call(self, x: object) -> object:
            return x + keras.random.normal((4,))

    inputs = keras.Input((16, 16, 3))
    outputs = Noisy()(layers.Dense(4)(layers.Flatten()(inputs)))
    with pytest.raises(ModelError, match="random at inference"):
        analyze(keras.Model(inputs, outputs), tiny_data(train=64, test=16), settings=SETTINGS)
