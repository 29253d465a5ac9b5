"""No config can call a function of Keras, TensorFlow or Python: the list of names decides."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from saved_models import writing_saved_model

from lrf_core.commands.app import main
from lrf_core.errors import EXIT_BAD_INPUT, ModelError
from lrf_core.models.load import load_model

layers = keras.layers


def graph() -> keras.Model:
    inputs = keras.Input((4,), name="x")
    dense = layers.Dense(4, activation="relu", name="dense")
    return keras.Model(inputs, dense(inputs) + 1.0, name="graph")


def part(kind: str, module: str | None, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "module": module, "config": config, "registered_name": None}


def function(name: str, module: str) -> dict[str, Any]:
    return {"class_name": "function", "module": module, "config": name, "registered_name": name}


def tensor(layer: str) -> dict[str, Any]:
    history = {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": history}


def calling(operation: str, *arguments: Any, module: str = "keras.src.ops.core") -> dict[str, Any]:
    """The config of `graph` with an operation at its end that is called with the arguments."""
    config = json.loads(graph().to_json())
    made = part(operation, module, name="bad")
    node = {"args": list(arguments), "kwargs": {}}
    config["config"]["layers"].append({**made, "name": "bad", "inbound_nodes": [node]})
    config["config"]["output_layers"] = ["bad", 0, 0]
    return config


def write(config: dict[str, Any], path: Path) -> Path:
    """A model file of the suffix of the path, with this config and the weights of `graph`."""
    model = graph()
    if path.suffix == ".json":
        path.write_text(json.dumps(config))
        model.save_weights(path.with_suffix(".weights.h5"))
    elif path.suffix == ".h5":
        keras.Sequential([keras.Input((4,)), layers.Dense(4)]).save(path)
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = json.dumps(config)
    else:
        model.save(path)
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, each in {**content, "config.json": json.dumps(config)}.items():
                archive.writestr(name, each)
    return path


def refused(config: dict[str, Any], path: Path) -> str:
    write(config, path)
    weights = path.with_suffix(".weights.h5") if path.suffix == ".json" else None
    with pytest.raises(ModelError) as caught:
        load_model(path, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".json"])
def test_a_switch_does_not_load_a_saved_model(suffix: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    writing_saved_model(tmp_path / "saved", mark)
    layers.TFSMLayer(str(tmp_path / "saved"))
    assert mark.exists()  # what would happen
    mark.unlink()

    loader = function("TFSMLayer", "keras.layers")
    config = calling("Switch", 0, [loader], str(tmp_path / "saved"))
    said = refused(config, tmp_path / f"model{suffix}")
    assert "layer 'bad' has 'keras.src.ops.core.Switch' as its layer" in said
    assert not mark.exists()


def test_the_command_line_does_not_load_a_saved_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    writing_saved_model(tmp_path / "saved", mark)
    loader = function("TFSMLayer", "keras.layers")
    config = calling("Switch", 0, [loader], str(tmp_path / "saved"))
    path = write(config, tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=np.zeros((8, 4), "float32"), y=np.arange(8) % 4)
    command = ["lrf", "analyze", str(path), "--data", str(tmp_path / "data.npz")]
    monkeypatch.setattr("sys.argv", [*command, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_BAD_INPUT
    assert "keras.src.ops.core.Switch" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    "operation",
    ["AssociativeScan", "Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop"],
)
def test_operations_that_call_a_function_are_refused(operation: str, tmp_path: Path) -> None:
    said = refused(calling(operation, tensor("dense")), tmp_path / "model.json")
    assert f"keras.src.ops.core.{operation}" in said


@pytest.mark.parametrize(
    "argument",
    [
        function("set_floatx", "keras.config"),
        function("relu", "builtins"),
        part("KerasFileEditor", "keras.saving", filepath="x"),
        part("Dense", "keras.layers", units=3),
        {"class_name": "__lambda__", "config": {"value": "x"}},
        {"class_name": "__typespec__", "config": [], "spec_name": "x", "module": "tensorflow"},
        {"class_name": ["Dense"], "config": {}},
        {"class_name": "__numpy__", "config": {"value": [1], "dtype": "U1000000000"}},
        {"class_name": "__keras_tensor__", "config": {"shape": [4], "dtype": "float32"}},
        [[{"deep": [function("load_model", "keras.saving")]}]],
        1 << 70,
    ],
)
def test_arguments_of_calls_are_numbers_and_tensors(argument: Any, tmp_path: Path) -> None:
    config = calling("Add", tensor("dense"), argument, module="keras.src.ops.numpy")
    assert "layer 'bad'" in refused(config, tmp_path / "model.json")


def test_an_operation_without_a_tensor_of_the_graph_is_not_run(tmp_path: Path) -> None:
    eager = {"class_name": "__tensor__", "config": {"value": [1.0], "dtype": "float32"}}
    config = calling("Tile", eager, module="keras.src.ops.numpy")
    assert "without a tensor of the graph" in refused(config, tmp_path / "model.json")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("activation", "eval"),
        ("activation", "keras.config.set_floatx"),
        ("activation", "ｒelu"),  # noqa: RUF001 - a letter that looks like another
        ("activation", function("deserialize", "keras.layers")),
        ("activation", {**function("relu", "keras.layers"), "registered_name": "TFSMLayer"}),
        ("activation", part("TFSMLayer", "keras.layers", filepath="x")),
        ("activation", [function("relu", "builtins")]),
        ("kernel_initializer", "Initializer"),
        ("kernel_initializer", part("Constant", "keras.layers", value=1)),
        ("kernel_initializer", part("Constant", "keras.initializers", value=function("x", "os"))),
        ("kernel_initializer", part("GlorotUniform", "keras.initializers", seed=part("X", "os"))),
        ("kernel_regularizer", part("Dense", "keras.layers", units=3)),
        ("kernel_constraint", function("get_file", "keras.utils")),
        ("dtype", part("AWQDTypePolicy", "keras.dtype_policies", mode="awq")),
        ("dtype", "U1000000000"),
        ("units", function("count", "keras.config")),
        ("units", {"class_name": "function"}),
        ("filepath", "/etc/passwd"),
        ("weights", [[1.0]]),
        ("quantization_config", part("GPTQConfig", "keras.quantizers", dataset="x")),
        ("lora_rank", 1 << 64),
    ],
)
def test_a_setting_holds_only_what_belongs_there(setting: str, value: Any, tmp_path: Path) -> None:
    config = json.loads(graph().to_json())
    config["config"]["layers"][1]["config"][setting] = value
    assert "layer 'dense'" in refused(config, tmp_path / "model.json")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("Dense", "keras.datasets"),
        ("Dense", "keras.layers "),
        ("Dense", ["keras.layers"]),
        ("Dense", "builtins"),
        ("Dense", None),
        ("Ｄense", "keras.layers"),  # noqa: RUF001
        ("keras>Dense", "keras.layers"),
        ("builtins>eval", "builtins"),
        ("GetItem", "keras.layers"),
        ("Switch", "keras.src.ops.numpy"),
        ("Backbone", "keras_hub.models"),
        ("FeatureSpace", "keras.utils"),
        ("KerasFileEditor", "keras.saving"),
        ("Layer", "keras.layers"),
        ("StringIO", "io"),
    ],
)
def test_a_layer_is_of_the_list_and_of_its_module(name: str, module: Any, tmp_path: Path) -> None:
    config = json.loads(graph().to_json())
    config["config"]["layers"][1].update(class_name=name, module=module)
    assert "not" in refused(config, tmp_path / "model.json")


def test_wrapped_layers_are_looked_at(tmp_path: Path) -> None:
    saved = part("TFSMLayer", "keras.layers", filepath="x")
    for kind, settings in (
        ("TimeDistributed", {"layer": saved}),
        ("Bidirectional", {"layer": part("LSTM", "keras.layers"), "backward_layer": saved}),
        ("RNN", {"cell": saved}),
        ("StackedRNNCells", {"cells": [saved]}),
        ("Pipeline", {"layers": [saved]}),
        ("SpectralNormalization", {"layer": saved}),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 2, "kernel_initializer": saved}),
    ):
        config = json.loads(graph().to_json())
        config["config"]["layers"][1].update(class_name=kind, config={"name": "w", **settings})
        assert "arbitrary code (TFSMLayer)" in refused(config, tmp_path / "model.json")


def test_what_a_user_registered_is_found_by_its_exact_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @keras.saving.register_keras_serializable("lrf_tests")
    class Doubled(layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(Doubled(name="mine")(inputs)))
    model.save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").get_layer("mine")

    def renamed(**changes: Any) -> str:
        config = json.loads(model.to_json())
        config["config"]["layers"][1].update(changes)
        return refused(config, tmp_path / "model.json")

    assert "not known here" in renamed(registered_name="Doubled")
    assert "not known here" in renamed(class_name="Other")
    for trick, found in (("lrf_tests>Saved", layers.TFSMLayer), ("lrf_tests>run", print)):
        monkeypatch.setitem(keras.saving.get_custom_objects(), trick, found)
        assert "not" in renamed(class_name=found.__name__, registered_name=trick)


def test_parts_in_the_settings_of_a_users_class_are_looked_at(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("lrf_tests")
    class Around(layers.Layer):
        def __init__(self, inner: Any = None, **settings: Any) -> None:
            super().__init__(**settings)

        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((4,))
    config = json.loads(keras.Model(inputs, Around(name="mine")(inputs)).to_json())
    inner = part("TFSMLayer", "keras.layers", filepath="x")
    config["config"]["layers"][1]["config"]["inner"] = [{"deep": inner}]
    assert "arbitrary code (TFSMLayer)" in refused(config, tmp_path / "model.json")
