"""The files a Keras model may come in: .keras, .h5, and a config with weights beside it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras

from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import ModelError
from lrf_core.models.keras2 import is_keras2, upgraded
from lrf_core.models.safety import check_archive, check_config
from lrf_core.models.source import KNOWN

_HDF5 = (".h5", ".hdf5")


def read_model(source: Path, weights: Path | None = None) -> keras.Model:
    """Read a model, not compiled. Nothing that could run code is loaded.

    Args:
        source: a `.keras` file or a folder with `model.keras`, an `.h5` file of a whole model, or
            a `.json` file with what `model.to_json()` returns.
        weights: a `.weights.h5`, `.h5` or `.keras` file; needed for a `.json` file only.

    Raises:
        ModelError: no such file, not of a known format, unsafe or unknown layers, or weights that
            do not fit.
    """
    path = _model_file(source)
    config, make = _opened(path)
    if config is None:
        raise ModelError(
            f"{path} holds weights, but no model; give the model's config as well, written with "
            "Path('config.json').write_text(model.to_json()), and this file as its weights"
        )
    check_config(config, str(path))
    if path.suffix == ".json" and weights is None:
        raise ModelError(
            f"{path} is a config without weights; give a weights file as well (--weights, or "
            "'weights:' in the spec)"
        )
    try:
        model = make()
    except Exception as error:  # noqa: BLE001 - Keras raises many types for a bad file
        raise ModelError(f"{path} is no readable Keras model: {_text(error)}") from None
    if weights is not None:
        _load_weights(model, weights)
    return model


def _model_file(path: Path) -> Path:
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise ModelError(
                f"{path} is a SavedModel; it holds a fixed graph that cannot be factorized. "
                "Give the .keras or .h5 file that the model was exported from"
            )
        path = path / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"no model at {path}; give the path of {KNOWN}")
    return path


def _opened(path: Path) -> tuple[dict[str, Any] | None, Callable[[], keras.Model]]:
    """The config in a file (None: it holds weights only), and how to make the model of it."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        return _config_in_zip(path), lambda: _loaded(path)
    if path.suffix in _HDF5 and h5py.is_hdf5(path):
        config, version = _config_in_hdf5(path)
        if config is not None and is_keras2(version):
            return config, lambda: _with_weights(_made_from(upgraded(config)), path)
        return config, lambda: _loaded(path)
    if path.suffix == ".json":
        config = _parsed(path.read_bytes(), path)
        if is_keras2(config.get("keras_version")):
            return config, lambda: _made_from(upgraded(config))
        return config, lambda: _made_from(config)
    raise ModelError(f"{path} is no Keras model file; give {KNOWN}")


def _loaded(path: Path) -> keras.Model:
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _config_in_zip(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            version = json.loads(archive.read("metadata.json")).get("keras_version")
            config = archive.read("config.json")
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is no readable Keras model: {_text(error)}") from None
    if is_keras2(version):
        raise ModelError(
            f"{path} was written by Keras {version}, whose .keras format Keras 3 cannot read; "
            "save it there as .h5 (model.save('name.h5')) and give that"
        )
    return _parsed(config, path)


def _config_in_hdf5(path: Path) -> tuple[dict[str, Any] | None, object]:
    with h5py.File(path, "r") as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
    version = version.decode() if isinstance(version, bytes) else version
    return (None if config is None else _parsed(config, path)), version


def _parsed(content: bytes | str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{path} holds no readable model config: {_text(error)}") from None
    if not (isinstance(config, dict) and isinstance(config.get("class_name"), str)):
        raise ModelError(f"{path} holds no model config; write it with model.to_json()")
    return config


def _made_from(config: dict[str, Any]) -> keras.Model:
    settings = {key: value for key, value in config.items() if key != "compile_config"}
    return keras.saving.deserialize_keras_object(settings, safe_mode=True)


def _with_weights(model: keras.Model, path: Path) -> keras.Model:
    model.load_weights(path)
    return model


def _load_weights(model: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"no weights at {path}; give a .weights.h5, .h5 or .keras file")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
    try:
        _with_weights(model, path)
    except Exception as error:  # noqa: BLE001 - Keras raises many types for a bad file
        raise ModelError(
            f"the weights in {path} do not fit model '{model.name}': {_text(error)}"
        ) from None


def _text(error: Exception) -> str:
    # Keras puts the whole config before the reason.
    reason = str(error).rpartition("Exception encountered:")[2]
    return " ".join(reason.split())[:300]
