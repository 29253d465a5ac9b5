"""Files that Keras 2 wrote. The configs were written by tf_keras 2.21."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from lrf_core.errors import ModelError
from lrf_core.models.load import load_model
from lrf_core.models.splice import largest_difference

layers = keras.layers
CONFIGS = Path(__file__).parent / "keras2"


def branched() -> keras.Model:
    """What keras2/branched.json describes."""
    image, numbers = keras.Input((16, 16, 3), name="a"), keras.Input((5,), name="b")
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(image)
    x = layers.Add()([x, layers.Conv2D(8, 1)(x)])
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3)(layers.ZeroPadding2D()(x))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(4)(numbers)])
    outputs = layers.Dense(3, activation="softmax")(layers.Dropout(0.1)(x))
    return keras.Model([image, numbers], outputs)


def nested() -> keras.Model:
    """What keras2/nested.json describes: a Sequential in a functional model."""
    parts = [layers.Conv2D(4, 3), layers.LeakyReLU(0.1), layers.Flatten()]
    head = layers.Dense(3, activation="softmax")
    inner = keras.Sequential([keras.Input((8, 8, 3)), *parts, head])
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


CASES = [("branched", branched), ("nested", nested)]


def samples_for(model: keras.Model) -> Any:
    random = np.random.default_rng(0)
    values = [random.normal(size=(3, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    return values if len(values) > 1 else values[0]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_a_config_with_weights(name: str, make: Any, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "weights.h5")  # in the layout that both versions share
    loaded = load_model(CONFIGS / f"{name}.json", tmp_path / "weights.h5")
    assert largest_difference(model, loaded, samples_for(model)) < 1e-6


@pytest.mark.parametrize(("name", "make"), CASES)
def test_an_h5_file(name: str, make: Any, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = (CONFIGS / f"{name}.json").read_text()
        file.attrs["keras_version"] = "2.15.0"
    loaded = load_model(tmp_path / "model.h5")
    assert largest_difference(model, loaded, samples_for(model)) < 1e-6


def without_modules(config: Any) -> Any:
    """As before TensorFlow 2.12, which did not write where a class comes from."""
    if isinstance(config, dict):
        new = ("module", "registered_name", "build_config")
        return {key: without_modules(value) for key, value in config.items() if key not in new}
    return [without_modules(value) for value in config] if isinstance(config, list) else config


@pytest.mark.parametrize(("name", "make"), CASES)
def test_an_older_config(name: str, make: Any, tmp_path: Path) -> None:
    config = without_modules(json.loads((CONFIGS / f"{name}.json").read_text()))
    config.update(class_name="Model", keras_version="2.4.0")
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "Sequential":
            layer["config"]["layers"].pop(0)  # its input was said in its first layer only
    (tmp_path / "model.json").write_text(json.dumps(config))
    model = make()
    model.save(tmp_path / "weights.h5")
    loaded = load_model(tmp_path / "model.json", tmp_path / "weights.h5")
    assert largest_difference(model, loaded, samples_for(model)) < 1e-6


def test_a_policy_of_mixed_precision(tmp_path: Path) -> None:
    config = json.loads((CONFIGS / "nested.json").read_text())
    config["config"]["layers"][-1]["config"]["dtype"] = {
        "module": "keras.mixed_precision",
        "class_name": "Policy",
        "config": {"name": "mixed_float16"},
        "registered_name": None,
    }
    (tmp_path / "model.json").write_text(json.dumps(config))
    nested().save(tmp_path / "weights.h5")
    loaded = load_model(tmp_path / "model.json", tmp_path / "weights.h5")
    assert loaded.layers[-1].dtype_policy.name == "mixed_float16"


def test_a_tf_function_between_layers_is_named(tmp_path: Path) -> None:
    config = json.loads((CONFIGS / "nested.json").read_text())
    config["config"]["layers"][-1].update(class_name="TFOpLambda", config={"name": "tf.math.abs"})
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"'tf.math.abs'|'dense_4' is a tf function"):
        load_model(tmp_path / "model.json", tmp_path / "weights.h5")


def test_the_keras_format_of_keras_2_cannot_be_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        archive.writestr("config.json", (CONFIGS / "nested.json").read_text())
    with pytest.raises(ModelError, match=r"written by Keras 2.15.0.*save it there as .h5"):
        load_model(tmp_path / "model.keras")
