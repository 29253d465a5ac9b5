"""Read and write Keras models safely, and name them by the digest of their content."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import keras
import numpy as np

from lrf_core.artifacts import MODEL_FILE, write_atomically_with
from lrf_core.errors import ModelError


def load_model(source: str | Path) -> keras.Model:
    """Read a Keras model (safe mode on) and check that it can be factorized.

    Args:
        source: a `.keras` file, or a folder that holds `model.keras`.

    Returns:
        A built Functional or Sequential model, not compiled.

    Raises:
        ModelError: no such file, no Keras model, unsafe or custom layers, a subclassed model,
            or weights that are not finite.
    """
    path = _model_file(Path(source))
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001 - Keras raises many types for a bad file
        raise ModelError(_why_unreadable(path, error)) from None
    check_model(model, str(path))
    return model


def check_model(model: keras.Model, where: str) -> None:
    """Raise ModelError unless the model is Functional or Sequential, built, and finite."""
    if not isinstance(model, keras.Model):
        raise ModelError(f"{where} holds a {type(model).__name__}, not a Keras model")
    if not isinstance(model, (keras.Sequential, keras.models.Model)) or not _is_graph(model):
        raise ModelError(
            f"{where} is a subclassed model ({type(model).__name__}); its layers cannot be "
            "replaced safely. Rebuild it with the functional API or as keras.Sequential."
        )
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            raise ModelError(
                f"{where}: layer '{layer.name}' is a Lambda layer (arbitrary code). Replace it "
                "by a stock Keras layer or keras.ops."
            )
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise ModelError(
                f"{where}: weight '{weight.path}' holds NaN or infinite values. "
                "Train the model again or restore a sound checkpoint."
            )


def save_model(model: keras.Model, target: Path) -> Path:
    """Write `model.keras` in a folder, or a given `.keras` file, whole or not at all.

    The optimizer state is left out: it may be twice the weights.

    Returns the file written.
    """
    path = target if target.suffix == ".keras" else target / MODEL_FILE
    bare = _without_optimizer(model)
    write_atomically_with(path, lambda temporary: bare.save(temporary))
    return path


def model_digest(model: keras.Model) -> str:
    """sha256 (hex) of architecture and weights.

    The optimizer, the file's time stamps and the way the model was compiled do not count, so the
    digest stays the same when a model is saved and loaded again.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(model.get_config(), sort_keys=True, default=_as_json).encode())
    for weight in model.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def weight_bytes(model: keras.Model) -> int:
    """Bytes of all weights as they are stored."""
    return sum(keras.ops.convert_to_numpy(weight).nbytes for weight in model.weights)


def is_probability(outputs: np.ndarray) -> bool:
    """Whether outputs (samples, classes) are probabilities already, rather than logits."""
    totals = outputs.sum(axis=-1)
    return bool(outputs.min() >= 0.0 and np.allclose(totals, 1.0, atol=1e-3))


def _without_optimizer(model: keras.Model) -> keras.Model:
    if not model.compiled:
        return model
    # model.save(include_optimizer=False) is obeyed for .h5 files only.
    bare = type(model).from_config(model.get_config())
    bare.set_weights(model.get_weights())
    return bare


def _as_json(value: object) -> object:
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return str(value)


def _is_graph(model: keras.Model) -> bool:
    from keras.src.models.functional import Functional  # the only way to name the class

    if isinstance(model, keras.Sequential):
        return bool(model.built) and type(model) is keras.Sequential
    return type(model) in (Functional, keras.Model) and isinstance(model, Functional)


def _model_file(path: Path) -> Path:
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise ModelError(
                f"{path} is a SavedModel; it holds a fixed graph that cannot be factorized. "
                "Give the .keras file the model was exported from."
            )
        path = path / MODEL_FILE
    if not path.exists():
        raise ModelError(f"no model at {path}; give the path of a .keras file")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ModelError(
            f"{path} is no Keras model file; save it with model.save('name.keras') and give that"
        )
    return path


def _why_unreadable(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "Lambda" in text or "unsafe" in text.lower():
        return (
            f"{path} holds a Lambda layer (arbitrary code), which is not loaded. Replace it by a "
            "stock Keras layer or keras.ops and save the model again."
        )
    if "registered" in text or "Could not locate class" in text or "custom" in text.lower():
        return (
            f"{path} holds a custom or subclassed layer or model that Keras cannot rebuild here: "
            f"{text[:200]}. Use stock layers, the functional API or keras.Sequential."
        )
    return f"{path} is no readable Keras model: {text[:300]}"
