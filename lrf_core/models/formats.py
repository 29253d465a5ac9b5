"""The files a Keras model may come in: .keras, .h5, and a config with weights beside it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras

from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import DISK_FAULTS, ArtifactError, LrfError, ModelError
from lrf_core.files.model_names import only_model
from lrf_core.files.scratch import scratch_folder
from lrf_core.models import unpack
from lrf_core.models.keras2 import is_keras2, upgraded
from lrf_core.models.safety import check_size, checked_model
from lrf_core.storage.address import Address
from lrf_core.storage.inputs import file_at

_WHOLE = ("keras", "hdf5")
_SNIFFED = 64
# Folders for copies.
_MODEL, _WEIGHTS = "model", "weights"


def _nothing() -> None:
    pass


def read_model(
    source: Path, weights: Path | None = None, once_copied: Callable[[], object] = _nothing
) -> tuple[keras.Model, dict[str, Any] | None]:
    """Read a model and the config that it was compiled with; load nothing that could run code.

    Args:
        source: a `.keras` file, an `.h5` file of a whole model, or a file with what
            `model.to_json()` returns, by any name; or a folder with one model file.
        weights: a `.weights.h5`, `.h5` or `.keras` file; needed for a `.json` file only.
        once_copied: called when copies of the files are checked and nothing is written any more,
            before Keras makes anything of them.

    Returns:
        The model, not compiled, and its compile config, which nothing has checked; None if the
        file holds none.

    Raises:
        ModelError: no such file, not of a known format, damaged, unsafe or unknown layers, more
            than is allowed, or weights that do not fit.
        SpecError: LRF_MAX_UNPACKED or LRF_MAX_LAYERS is no number.
        ArtifactError: there is no room for a temporary copy.
    """
    path = _model_file(source)
    try:
        with scratch_folder("model") as scratch:
            for folder in (_MODEL, _WEIGHTS):
                (scratch / folder).mkdir()
            return _read(path, weights, scratch, once_copied), _compile_config(path)
    except LrfError:
        raise
    except Exception as error:  # noqa: BLE001 - Keras raises many types for a bad file
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise ArtifactError(
                f"cannot write a temporary copy of {path}: {error.strerror}; make room, or set "
                "TMPDIR to a folder with room"
            ) from None
        raise ModelError(f"{path} is no readable Keras model: {_text(error)}") from None


def _read(
    path: Path, weights: Path | None, scratch: Path, once_copied: Callable[[], object]
) -> keras.Model:
    config, own = _opened(path, scratch / _MODEL)
    if config is None:
        raise ModelError(
            f"{path} holds weights, but no model; give the model's config as well, written with "
            "Path('config.json').write_text(model.to_json()), and this file as its weights"
        )
    config = checked_model(config, str(path))
    if own is None and weights is None:
        raise ModelError(
            f"{path} is a config without weights; give a weights file as well (--weights, or "
            "'weights:' in the spec)"
        )
    new = None if weights is None else _weights_file(weights, scratch / _WEIGHTS)
    files = ((own, path), (new, weights))
    stored = [unpack.checked_hdf5(file, str(name)) for file, name in files if file is not None]
    is_keras = _kind(path) == "keras"
    if is_keras:
        _write_config(config, scratch / _MODEL)
    once_copied()
    for count in stored:
        check_size(config, count, str(path))
    if is_keras:
        model = keras.saving.load_model(scratch / _MODEL, compile=False, safe_mode=True)
    else:
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        new, weights = new or own, weights or path
    if new is not None and weights is not None:
        _load_weights(model, new, weights)
    if not model.built:
        raise ModelError(f"{path} holds a model that is not built; call it once and save it again")
    return model


def _model_file(path: Path) -> Path:
    """The file itself, or the only model file in a folder, by its name or by its content."""
    if path.is_dir():
        path = _model_in(path)
    if not path.is_file():
        raise ModelError(f"no model at {path}; give the path of {KNOWN}")
    return path


def _model_in(folder: Path) -> Path:
    files = {entry.name: entry for entry in folder.iterdir() if entry.is_file()}
    if "saved_model.pb" in files:
        raise ModelError(
            f"{folder} is a SavedModel; it holds a fixed graph that cannot be factorized. "
            "Give the .keras or .h5 file that the model was exported from"
        )
    try:
        name = only_model(files)
    except ValueError as error:
        raise ModelError(f"{folder} {error}") from None
    if name is not None:
        return files[name]
    unnamed = [file for file in files.values() if not file.suffix and _kind(file) in _WHOLE]
    return unnamed[0] if len(unnamed) == 1 else folder / MODEL_FILE


def _kind(path: Path) -> str:
    """What a file is by its content: artifacts of pipelines have no suffix."""
    if zipfile.is_zipfile(path):
        return "keras"
    if h5py.is_hdf5(path):
        return "hdf5"
    with path.open("rb") as file:
        is_json = file.read(_SNIFFED).lstrip().startswith(b"{") or path.suffix == ".json"
    return "json" if is_json else ""


def _opened(path: Path, folder: Path) -> tuple[dict[str, Any] | None, Path | None]:
    """The config in a file (None: it holds weights only), as Keras 3 writes it, and its weights.

    Both are copies: what is checked is what is read.
    """
    kind = _kind(path)
    if kind == "keras":
        text, metadata = unpack.unpack_keras(path, folder)
        version = _object(metadata, path, "metadata").get("keras_version")
        if is_keras2(version):
            raise ModelError(
                f"{path} was written by Keras {version}, whose .keras format Keras 3 cannot read; "
                "save it there as .h5 (model.save('name.h5')) and give that"
            )
        return _config(text, path), _unpacked_weights(path, folder)
    if kind == "hdf5":
        copy = folder / "model.h5"
        unpack.copy_file(path, copy)
        unpack.checked_hdf5(copy, str(path))
        with h5py.File(copy, "r") as file:
            text, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
        version = version.decode() if isinstance(version, bytes) else version
        config = None if text is None else _config(text, path)
        return upgraded(config) if config and is_keras2(version) else config, copy
    if kind == "json":
        with path.open("rb") as file:
            config = _config(unpack.bounded_text(file, str(path)), path)
        return upgraded(config) if is_keras2(config.get("keras_version")) else config, None
    raise ModelError(f"{path} is no Keras model file; give {KNOWN}")


def _compile_config(path: Path) -> dict[str, Any] | None:
    try:
        kind = _kind(path)
        if kind == "keras":
            config = _object(unpack.keras_texts(path)[0], path, "config").get("compile_config")
        elif kind == "hdf5":
            with h5py.File(path, "r") as file:
                config = json.loads(file.attrs.get("training_config", "null"))
        else:
            return None
    except Exception:  # noqa: BLE001 - zipfile and h5py raise many types for a bad file
        return None
    return config if isinstance(config, dict) else None


def _object(content: bytes | str, path: Path, noun: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{path} holds no readable model {noun}: {_text(error)}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no model {noun}; write it with Keras")
    return found


def _config(content: bytes | str, path: Path) -> dict[str, Any]:
    config = _object(content, path, "config")
    if not isinstance(config.get("class_name"), str):
        raise ModelError(f"{path} holds no model config; write it with model.to_json()")
    return config


def _write_config(config: dict[str, Any], folder: Path) -> None:
    """Complete an unpacked `.keras` file with the config that was checked."""
    (folder / unpack.CONFIG).write_text(json.dumps(config))
    (folder / unpack.METADATA).write_text("{}")


def _weights_file(path: Path, folder: Path) -> Path:
    """A copy of a file of weights, named so that Keras knows its layout."""
    if not path.is_file():
        raise ModelError(f"no weights at {path}; give a .weights.h5, .h5 or .keras file")
    kind = _kind(path)
    if kind == "keras":
        unpack.unpack_keras(path, folder)
        return _unpacked_weights(path, folder)
    if kind == "hdf5":
        copy = folder / ("new.weights.h5" if path.name.endswith(".weights.h5") else "new.h5")
        unpack.copy_file(path, copy)
        return copy
    raise ModelError(f"the weights in {path} do not fit: it is no .weights.h5, .h5 or .keras file")


def _unpacked_weights(path: Path, folder: Path) -> Path:
    weights = folder / unpack.WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{path} is no readable Keras model: it holds no {unpack.WEIGHTS}")
    return weights


def _load_weights(model: keras.Model, file: Path, name: Path) -> None:
    try:
        model.load_weights(file)
    except Exception as error:  # noqa: BLE001 - Keras raises many types for a bad file
        raise ModelError(
            f"the weights in {name} do not fit model '{model.name}': {_text(error)}"
        ) from None


def _text(error: Exception) -> str:
    # Keras puts the whole config before the reason.
    reason = str(error).rpartition("Exception encountered:")[2]
    return " ".join(reason.split())[:300] or type(error).__name__


KNOWN = "a .keras file, an .h5 file, or a .json config together with a weights file"


def model_at(source: str) -> Path:
    """The path of a model; of what is in S3, of a copy on this machine.

    Args:
        source: a path, `s3://bucket/key`, or a folder or prefix with one model file in it.

    Raises:
        ModelError: there is none, or there are several.
        StorageError: S3 cannot be reached, refuses the keys, or the cache cannot be written.
    """
    address = Address.of(source)
    if not address.is_remote:
        return _model_file(Path(address.path))
    file = file_at(source) or _model_below(source, address)
    if file is None:
        raise ModelError(
            f"no model at {source}; give the address of {KNOWN}, or a prefix with one model file"
        )
    return file


def _model_below(source: str, address: Address) -> Path | None:
    prefix = f"{address.path.rstrip('/')}/" if address.path.strip("/") else ""
    try:
        key = only_model(address.bucket_store().list(prefix))
    except ValueError as error:
        raise ModelError(f"{source} {error}") from None
    return None if key is None else file_at(f"{address.scheme}://{address.bucket}/{key}")


def weights_at(source: str) -> Path:
    """The path of a file of weights, as `model_at` gives that of a model."""
    address = Address.of(source)
    if not address.is_remote:
        return Path(address.path)
    file = file_at(source)
    if file is None:
        raise ModelError(f"no weights at {source}; give a .weights.h5, .h5 or .keras file")
    return file
