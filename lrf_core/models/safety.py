"""Refuse a model before anything in it is made: what would run code, what is not here, bombs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from lrf_core.errors import ModelError

# These carry or call code, or load it from elsewhere.
_RUNS_CODE = {
    "Lambda",
    "__lambda__",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
}
# What tf.keras 2 wrote for a tf function called between layers. Keras 3 has nothing like it.
_TF_FUNCTIONS = {
    "TFOpLambda",
    "SlicingOpLambda",
    "TensorFlowOpLayer",
    "ClassMethod",
    "InstanceMethod",
    "InstanceProperty",
}
# Keras looks classes up in these packages and nowhere else.
_PACKAGES = {"keras", "keras_hub", "keras_cv", "keras_nlp", "builtins"}


# Weights are as good as random; what unpacks to much more than itself was made to do harm.
_MOST_RATIO = 200
_ALWAYS_ALLOWED = 64 << 20


def check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise ModelError unless an opened `.keras` file can be unpacked without harm.

    The stated sizes count: Python's zipfile never gives more of a member than its stated size.
    """
    members = archive.infolist()
    for member in members:
        name = member.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ModelError(
                f"{path}: {name!r:.120} in it leads out of the file; it is not loaded. Save the "
                "model again with model.save('name.keras')"
            )
    if len({member.filename for member in members}) < len(members):
        raise ModelError(
            f"{path} holds two members of one name; it is not loaded. Save the model again with "
            "model.save('name.keras')"
        )
    size, unpacked = path.stat().st_size, sum(member.file_size for member in members)
    if unpacked > max(_MOST_RATIO * size, _ALWAYS_ALLOWED):
        raise ModelError(
            f"{path} unpacks to {unpacked} bytes from {size}, as a zip bomb does; it is not loaded"
        )


def check_config(config: dict[str, Any], where: str) -> None:
    """Raise ModelError unless every part of a model's config is of Keras or registered with it.

    Args:
        config: as in `config.json` of a `.keras` file, the attribute `model_config` of an `.h5`
            file, or `model.to_json()`; how the model was compiled does not count, it is not read.
        where: the file, for the message.
    """
    for part in _parts({**config, "compile_config": None}):
        kind = part["class_name"]
        settings = part.get("config")
        name = part.get("name") or (settings.get("name") if isinstance(settings, dict) else None)
        layer = f"layer '{name}'" if name else "a part"
        if kind in _RUNS_CODE:
            raise ModelError(
                f"{where}: {layer} is arbitrary code ({kind}), which is not loaded. Replace a "
                "Lambda layer or the like by a stock Keras layer or keras.ops and save again"
            )
        if kind in _TF_FUNCTIONS:
            raise ModelError(
                f"{where}: {layer} is a tf function called between layers ({kind}), which Keras 3 "
                "cannot read. Replace it by a stock Keras layer or keras.ops and save again"
            )
        if not _is_known(part):
            raise ModelError(
                f"{where} holds a custom or subclassed layer, model or function that is not known "
                f"here: {layer} of class {part.get('module')}.{kind}. Rebuild it from stock "
                "layers with the functional API, or, in Python, register its class with "
                "keras.saving.register_keras_serializable and load the model in that process"
            )


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every serialized object in a config, the outer ones first."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)


def _is_known(part: dict[str, Any]) -> bool:
    # Without a module it is a Keras 2 config, of which Keras knows the classes by name only.
    if part["class_name"].startswith("__") or "module" not in part:
        return True
    module, registered = part["module"], part.get("registered_name")
    if isinstance(module, str) and module.partition(".")[0] in _PACKAGES:
        return True
    return keras.saving.get_registered_object(registered or part["class_name"]) is not None
