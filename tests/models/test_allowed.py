"""The list of parts against all that the installed Keras exports."""

from __future__ import annotations

import inspect
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest
from keras.src.ops.operation import Operation

from lrf_core.errors import ModelError
from lrf_core.models import allowed
from lrf_core.models.load import load_model, save_model
from lrf_core.models.safety import checked_compiled, checked_model, without_memory

layers = keras.layers
PLACES = {
    "activation": allowed.ACTIVATION,
    "kernel_initializer": allowed.INITIALIZER,
    "kernel_regularizer": allowed.REGULARIZER,
    "kernel_constraint": allowed.CONSTRAINT,
}


def exported(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(module, name) of everything public below a module of Keras."""
    for name in dir(module):
        value = getattr(module, name)
        if name.startswith("_") or name == "src":
            continue
        if isinstance(value, ModuleType):
            if value.__name__.startswith(f"{module.__name__}."):
                yield from exported(value)
        elif callable(value):
            yield module.__name__, name


def operations() -> Iterator[tuple[str, str]]:
    """(module, name) of every operation and layer that is loaded, public or not."""
    waiting = [Operation]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind.__module__.startswith("keras."):
                yield kind.__module__, kind.__name__
            waiting.append(kind)


SYMBOLS = sorted({*exported(keras), *operations()})


def model_with(**layer: Any) -> dict[str, Any]:
    inputs = keras.Input((4,))
    config = json.loads(keras.Model(inputs, layers.Dense(3)(inputs)).to_json())
    config["config"]["layers"][1].update(layer)
    return config


MODEL = model_with()


def passes(config: dict[str, Any]) -> bool:
    try:
        checked_model(config, "file")
    except ModelError:
        return False
    return True


def in_dense(setting: str, value: Any) -> dict[str, Any]:
    config = json.loads(json.dumps(MODEL))
    config["config"]["layers"][1]["config"][setting] = value
    return config


def test_many_symbols_are_tried() -> None:
    assert len(SYMBOLS) > 1500
    assert {("keras.layers", "TFSMLayer"), ("keras.src.ops.core", "Switch")} <= set(SYMBOLS)


def test_a_layer_is_on_the_list_or_refused() -> None:
    for module, name in SYMBOLS:
        config = json.loads(json.dumps(MODEL))
        changed = {"class_name": name, "module": module, "config": {"name": "dense"}}
        config["config"]["layers"][1].update(changed)
        home = f"{module}.".startswith(("keras.layers.", "keras.src.layers."))
        listed = (
            (name in allowed.LAYERS and home)
            or name in allowed.OPERATIONS.get(module, ())
            or name in allowed.OF_APPLICATIONS.get(module, ())
            or name in allowed.MODELS
        )
        assert passes(config) == listed, (module, name)


@pytest.mark.parametrize("setting", PLACES)
def test_an_object_in_a_setting_is_on_the_list_or_refused(setting: str) -> None:
    place = PLACES[setting]
    for module, name in SYMBOLS:
        made = {"class_name": name, "module": module, "config": {}, "registered_name": None}
        listed = module == place.module and name in place.classes
        if place is allowed.ACTIVATION:  # any layer may be one
            home = f"{module}.".startswith(("keras.layers.", "keras.src.layers."))
            listed = (name in allowed.LAYERS and home) or name in allowed.MODELS
            listed = listed or name in allowed.OPERATIONS.get(module, ())
            listed = listed or name in allowed.OF_APPLICATIONS.get(module, ())
        assert passes(in_dense(setting, made)) == listed, (module, name)
        assert passes(in_dense(setting, name)) == (name in place.names), name
        function = {"class_name": "function", "module": module, "config": name}
        known = name in place.names and module == place.module
        assert passes(in_dense(setting, function)) == known, (module, name)


def test_no_function_is_an_argument_and_no_other_setting_holds_a_part() -> None:
    for module, name in SYMBOLS:
        function = {"class_name": "function", "module": module, "config": name}
        made = {"class_name": name, "module": module, "config": {}, "registered_name": None}
        for value in (function, made, [{"x": function}]):
            config = json.loads(json.dumps(MODEL))
            node = config["config"]["layers"][1]["inbound_nodes"][0]
            node["args"].append(value)
            assert not passes(config), (module, name)
            assert not passes(in_dense("units", value)), (module, name)
            assert not passes(in_dense("dtype", value)) or name.endswith("DTypePolicy")


@pytest.mark.parametrize("place", [allowed.LOSS, allowed.METRIC], ids=lambda place: place.noun)
def test_a_loss_or_metric_is_on_the_list_or_refused(place: allowed.Place) -> None:
    for module, name in SYMBOLS:
        made = {"class_name": name, "module": module, "config": {}, "registered_name": None}
        function = {"class_name": "function", "module": module, "config": name}
        for value, listed in (
            (made, module == place.module and name in place.classes),
            (name, name in place.names),
            (function, module == place.module and name in place.names),
        ):
            try:
                checked_compiled(value, place, "file")
                passed = True
            except ModelError:
                passed = False
            assert passed == listed, value


def test_everything_on_the_list_is_of_the_installed_keras() -> None:
    public = set(SYMBOLS)
    assert {("keras.layers", name) for name in allowed.LAYERS} <= public
    for module, names in allowed.OPERATIONS.items():
        assert {(module, name) for name in names} <= public
        assert all(issubclass(getattr(sys.modules[module], name), Operation) for name in names)
    for place in (*PLACES.values(), allowed.LOSS, allowed.METRIC):
        assert {(place.module, name) for name in place.classes} <= public
        module = sys.modules[f"keras.src.{place.module.removeprefix('keras.')}"]
        special = {"accuracy", "acc", "crossentropy", "ce"}  # of keras.Model.compile
        known = {*module.ALL_OBJECTS_DICT, *dir(sys.modules[place.module])} | special
        assert place.names <= known, place.names - known


def test_settings_that_take_code_or_a_file_are_on_no_list() -> None:
    never = {
        "function",
        "call_fn",
        "init_fn",
        "module",
        "filepath",
        "path",
        "fn",
        "state",
        "params",
    }
    named = {*allowed.PLAIN, *allowed.ARRAYS, *allowed.SHAPES, *allowed.MOST, *allowed.COMPILED}
    assert not named & (never | {"vocabulary", "arguments", "variables", "dataset", "tokenizer"})


SETTINGS: dict[str, Any] = {
    "activation": "relu",
    "axes": 1,
    "cell": lambda: layers.LSTMCell(3),
    "cells": lambda: [layers.LSTMCell(3)],
    "dims": (2, 1, 3),
    "equation": "abcd,de->abce",
    "factor": 0.2,
    "filters": 3,
    "head_dim": 2,
    "height": 4,
    "height_factor": 0.1,
    "input_dim": 9,
    "kernel_size": 2,
    "key_dim": 2,
    "layer": lambda: layers.LSTM(3, return_sequences=True),
    "layers": lambda: [layers.Rescaling(2.0)],
    "max_number": 4,
    "n": 2,
    "num_bins": 4,
    "num_heads": 2,
    "num_key_value_heads": 1,
    "num_query_heads": 2,
    "num_tokens": 4,
    "output_dim": 4,
    "output_shape": (None, None, 4),
    "output_size": 2,
    "pool_size": 2,
    "rate": 0.1,
    "scale": 2.0,
    "stddev": 0.1,
    "target_shape": (-1,),
    "units": 3,
    "value_range": (0, 255),
    "width": 4,
    "width_factor": 0.1,
}
OTHER: dict[str, dict[str, Any]] = {
    "CategoryEncoding": {"num_tokens": 4},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "GroupNormalization": {"groups": 3},
    "IntegerLookup": {"vocabulary": [1, 2]},
    "RandomPosterization": {"factor": 3},
    "SpectralNormalization": {"layer": layers.Dense(3)},
    "StringLookup": {"vocabulary": ["a", "b"]},
    "TextVectorization": {"vocabulary": ["a", "b"]},
    "TimeDistributed": {"layer": layers.Dense(3)},
}
SHAPES = [(8, 8, 3), (8, 3), (8,), (4, 8, 8, 3), (4, 4, 8, 8, 3), (200,), (1000, 1)]
# Cells are for RNN; Keras cannot save the others in a functional model (3.15).
NOT_ALONE = {"GRUCell", "InputLayer", "LSTMCell", "SimpleRNNCell", "StackedRNNCells"}
NOT_ALONE |= {"RandomBrightness", "RandomColorDegeneration", "RandomSaturation"}
NOT_ALONE |= {"RandomSharpness", "Solarization", "Equalization"}


def made(name: str) -> keras.Layer:
    kind, settings = getattr(layers, name), OTHER.get(name, {})
    for setting, parameter in inspect.signature(kind.__init__).parameters.items():
        needed = parameter.default is inspect.Parameter.empty and setting in SETTINGS
        if needed and setting not in settings:
            value = SETTINGS[setting]
            settings = {**settings, setting: value() if callable(value) else value}
    return kind(**settings)


def alone(name: str) -> keras.Model:
    """A model of one layer, for the first inputs that it takes."""
    reasons = []
    for dtype, shape in itertools.product(("float32", "int32", "string"), SHAPES):
        ends = [keras.Input(shape, dtype=dtype) for _ in range(2)]
        for inputs, arguments in ((ends[:1], ends[:1]), (ends, [ends]), (ends, ends)):
            try:
                return keras.Model(inputs, made(name)(*arguments))
            except Exception as error:  # noqa: BLE001 - the wrong inputs
                reasons.append(str(error)[:80])
    raise AssertionError(reasons[:5])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(allowed.LAYERS - NOT_ALONE))
def test_a_layer_of_the_list_can_be_loaded(name: str, tmp_path: Path) -> None:
    model = alone(name)
    assert load_model(save_model(model, tmp_path)).count_params() == model.count_params()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("ConvNeXtTiny", "ResNet50") else pytest.mark.slow)
        for name in sorted(dir(keras.applications))
        if name[0].isupper()
    ],
)
def test_an_application_of_keras_is_on_the_list(name: str) -> None:
    with without_memory():
        config = json.loads(getattr(keras.applications, name)(weights=None).to_json())
        copy = checked_model(config, name)
        again = keras.saving.deserialize_keras_object(copy)
    assert json.loads(again.to_json())["config"] == config["config"]
