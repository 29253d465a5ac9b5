"""Files that would do harm are refused in one line, before anything in them is made."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.data import open_data
from lrf_core.errors import DataError, LrfError, ModelError
from lrf_core.models.load import load_model


@pytest.fixture
def model() -> keras.Model:
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="dense")]
    return keras.Sequential(layers, name="small")


@pytest.fixture
def saved(model: keras.Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def refused(use: Callable[[], object], kind: type[LrfError] = ModelError) -> str:
    with pytest.raises(kind) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, each in content.items():
            archive.writestr(name, each)


@pytest.mark.parametrize("name", ["../out", "/etc/out", "assets/../../out", "a\\..\\out"])
def test_names_that_lead_out_of_a_keras_file(saved: Path, name: str) -> None:
    write_zip(saved, {**members(saved), name: b"x"})

    assert "leads out of the file" in refused(lambda: load_model(saved))
    assert [path.name for path in saved.parent.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5", "assets/x"])
def test_a_keras_file_that_is_a_zip_bomb(saved: Path, member: str) -> None:
    content = members(saved)
    write_zip(saved, {**content, member: content.get(member, b"") + b" " * (80 << 20)})

    assert "as a zip bomb does" in refused(lambda: load_model(saved))


def test_a_keras_file_that_says_less_than_it_unpacks_to(saved: Path) -> None:
    content = members(saved)
    write_zip(saved, {**content, "config.json": content["config.json"] + b" " * (1 << 20)})
    size = len(content["config.json"]) + (1 << 20)
    small = len(content["config.json"]).to_bytes(4, "little")
    saved.write_bytes(saved.read_bytes().replace(size.to_bytes(4, "little"), small))

    assert "is no readable Keras model" in refused(lambda: load_model(saved))


def test_a_keras_file_with_two_configs(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", b"{}")

    assert "two members of one name" in refused(lambda: load_model(saved))


def test_weights_that_are_a_zip_bomb(model: keras.Model, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(model.to_json())
    write_zip(saved, {**members(saved), "model.weights.h5": bytes(80 << 20)})

    assert "as a zip bomb does" in refused(lambda: load_model(tmp_path / "model.json", saved))


def test_a_lambda_layer(tmp_path: Path) -> None:
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: x, name="code")]
    keras.Sequential(layers).save(tmp_path / "model.keras")

    assert "layer 'code' is arbitrary code (Lambda)" in refused(
        lambda: load_model(tmp_path / "model.keras")
    )


def test_a_function_of_another_module(saved: Path) -> None:
    content = members(saved)
    config = json.loads(content["config.json"])
    config["config"]["layers"][1]["config"]["activation"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    write_zip(saved, {**content, "config.json": json.dumps(config).encode()})

    assert "not known" in refused(lambda: load_model(saved))


def test_h5_weights_that_are_kept_in_another_file(
    model: keras.Model, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(np.ones(12, np.float32).tobytes())
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        variables = file["layers/dense/vars"]
        del variables["0"]
        place = [(str(tmp_path / "secret"), 0, 48)]
        variables.create_dataset("0", (4, 3), np.float32, external=place)

    said = refused(lambda: load_model(tmp_path / "model.json", tmp_path / "w.weights.h5"))
    assert "are in external files" in said


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".pkl"])
def test_a_pickle_in_place_of_a_model(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.")

    assert "is no Keras model file" in refused(lambda: load_model(path))


def test_an_npz_file_with_python_objects(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}] * 10, dtype=object)
    np.savez(tmp_path / "data.npz", x=objects, y=np.zeros(10, np.int64))

    said = refused(lambda: open_data(str(tmp_path / "data.npz"), tiny_cnn((4, 4, 3))), DataError)
    assert "holds Python objects, which are not read" in said


def test_an_npz_file_with_an_h5_file_in_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.zeros(3)
    write_zip(tmp_path / "data.npz", {"x.npy": (tmp_path / "x.h5").read_bytes(), "y.npy": b""})

    said = refused(lambda: open_data(str(tmp_path / "data.npz"), tiny_cnn((4, 4, 3))), DataError)
    assert "'x' in it is no array" in said
