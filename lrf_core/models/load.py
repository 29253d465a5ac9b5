"""Read and write Keras models safely, and name them by the digest of their content."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import keras
import numpy as np

from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import ModelError
from lrf_core.files.atomic import write_atomically_with
from lrf_core.models.compiled import compile_as
from lrf_core.models.formats import model_at, read_model, weights_at
from lrf_core.models.rebuild import carry_state
from lrf_core.models.sandboxed import read_in_sandbox
from lrf_core.models.unroll import to_functional
from lrf_core.sandbox.setting import sandbox_is_on
from lrf_core.storage.cache import named

_logger = logging.getLogger("lrf")


def load_model(
    source: str | Path, weights: str | Path | None = None, *, sandbox: bool | None = None
) -> keras.Model:
    """Read a Keras model safely and check that it can be factorized.

    Args:
        source: a `.keras` file, an `.h5` file of a whole model, or a file with the config that
            `model.to_json()` returns, recognized by their content; or a folder with one model
            file; on this machine or in S3 (`s3://bucket/key` or prefix).
        weights: a `.weights.h5`, `.h5` or `.keras` file; needed with a config only.
        sandbox: whether a process that can do nothing else reads the files; default: what
            `LRF_SANDBOX` says. It does not know the classes that are registered in this one: when
            there are any, the files are read here, and a warning says so.

    Returns:
        A built Functional or Sequential model, compiled with the loss and the metrics of the file
        if those are of Keras or registered in this process, and not at all otherwise, with a
        warning; never with the optimizer of the file. Of a subclassed model whose class is
        registered in this process, the functional model that its call amounts to.

    Raises:
        ModelError: no such file, no Keras model, unsafe or unknown layers, a subclassed model
            that cannot be followed, or weights that do not fit or are not finite; or reading it
            in the sandbox did something else, or used up too much.
        SandboxError: the sandbox cannot be started here.
        StorageError: S3 cannot be reached, refuses the keys, or the cache cannot be written.
    """
    read = read_in_sandbox if _is_to_sandbox(source, sandbox) else read_model
    file = model_at(str(source))
    loaded = None if weights is None else weights_at(str(weights))
    with named(str(source), file), named(str(weights), loaded):
        given, compiled = read(file, loaded)
        model = to_functional(given)
    check_model(model, str(source))
    compile_as(model, compiled, str(source))
    return model


def check_model(model: keras.Model, where: str) -> None:
    """Raise ModelError unless the model runs no code of unknown origin and its weights are finite.

    Args:
        model: a Functional or Sequential model, see `to_functional`.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            raise ModelError(
                f"{where}: layer '{layer.name}' is a Lambda layer (arbitrary code). Replace it "
                "by a stock Keras layer or keras.ops."
            )
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        # By Keras' name: bfloat16 is no floating dtype to NumPy.
        if "float" in weight.dtype and not np.isfinite(values).all():
            raise ModelError(
                f"{where}: weight '{weight.path}' holds NaN or infinite values. "
                "Train the model again or restore a sound checkpoint."
            )


def save_model(model: keras.Model, target: Path) -> Path:
    """Write `model.keras` in a folder, or a given `.keras` file, whole or not at all.

    The optimizer state is left out: it may be twice the weights.

    Args:
        model: any Keras model that was built.
        target: a `.keras` file, or a folder for `model.keras`.

    Returns:
        The file written.

    Raises:
        ArtifactError: the file cannot be written.
    """
    path = target if target.suffix == ".keras" else target / MODEL_FILE
    bare = _uncompiled(model) if model.compiled else model
    write_atomically_with(path, lambda temporary: bare.save(temporary))
    return path


def model_digest(model: keras.Model) -> str:
    """sha256 (hex) of architecture and weights.

    The optimizer, the file's time stamps and the way the model was compiled do not count, so the
    digest stays the same when a model is saved and loaded again.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(model.get_config(), sort_keys=True, default=_as_json).encode())
    for layer in model._flatten_layers():
        if hasattr(layer, "get_vocabulary"):
            digest.update(json.dumps([str(word) for word in layer.get_vocabulary()]).encode())
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


def _is_to_sandbox(source: str | Path, sandbox: bool | None) -> bool:
    wanted = sandbox_is_on() if sandbox is None else sandbox
    own = sorted(keras.saving.get_custom_objects())
    if wanted and own:
        _logger.warning(
            "%s is read without the sandbox: classes are registered in this process (%s), which "
            "another one does not know",
            source,
            ", ".join(own[:3]),
        )
    return wanted and not own


def _uncompiled(model: keras.Model) -> keras.Model:
    """A copy; model.save(include_optimizer=False) is obeyed for .h5 files only."""
    bare = type(model).from_config(model.get_config())
    carry_state(model, bare)
    return bare


def _as_json(value: object) -> object:
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return str(value)
