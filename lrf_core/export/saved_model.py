"""SavedModels, for TensorFlow Serving and everything else that runs TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.quiet import native_output_logged
from lrf_core.errors import DISK_FAULTS, ArtifactError, ExportError
from lrf_core.export.interface import as_called, in_structure, input_names
from lrf_core.export.normalize import reason
from lrf_core.export.runtime import ExportedModel
from lrf_core.files.scratch import folder_beside
from lrf_core.models.unroll import to_functional

Array = npt.NDArray[Any]

# How TensorFlow says that a disk is at fault, not the model.
_UNWRITABLE = tuple(map(os.strerror, DISK_FAULTS))
_PARTS = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}


def to_saved_model(model: keras.Model, folder: str | Path) -> Path:
    """Write a SavedModel with an open batch axis; returns the folder.

    Its endpoint `serve`, also the signature `serving_default`, is the model at inference.

    Raises:
        ExportError: the model cannot be traced.
        ArtifactError: the folder cannot be written, which says nothing about the model.
        ModelError: a subclassed model that cannot be followed.
    """
    graph = to_functional(model)
    archive = keras.export.ExportArchive()
    try:
        with native_output_logged():
            archive.track(graph)
            archive.add_endpoint(
                "serve",
                # Not model.__call__: without a word, random layers leave their draws behind.
                lambda inputs: graph(as_called(graph, inputs), training=False),
                input_signature=[serving_signature(graph)],
            )
            archive.write_out(str(folder), verbose=False)
    except Exception as error:
        # Keras and TensorFlow raise many types here; the reason is in the text of each.
        unwritable = next((words for words in _UNWRITABLE if words in str(error)), None)
        if unwritable:
            raise ArtifactError(
                f"cannot write {folder}: {unwritable}; make room, or name another folder for "
                "temporary files in TMPDIR"
            ) from None
        raise ExportError(
            f"model '{model.name}' cannot be written as a SavedModel to {folder}: {reason(error)}"
        ) from error
    return Path(folder)


def serving_signature(model: keras.Model) -> Any:
    """A tf.TensorSpec for each input, batch axis open, in the structure of the model's input."""
    import tensorflow as tf

    names = input_names(model)
    specs = {
        name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for name, tensor in zip(names, model.inputs, strict=True)
    }
    return in_structure(model, specs)


def write_folder_atomically_with(target: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary folder beside `target`, then move it there.

    A SavedModel that is there is replaced.

    Raises:
        ArtifactError: the place cannot be written, or holds something else.
    """
    if target.exists() and not _is_replaceable(target):
        raise ArtifactError(f"{target} exists and is no SavedModel; give a folder of its own")
    try:
        with folder_beside(target.parent) as beside:
            written, replaced = beside / "written", beside / "replaced"
            written.mkdir()
            write(str(written))
            if target.exists():
                target.rename(replaced)
            written.rename(target)
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from None


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= _PARTS


class SavedModel(ExportedModel):
    """A SavedModel, run by TensorFlow.

    Args:
        folder: as `to_saved_model` writes it.

    Raises:
        ExportError: it cannot be loaded, or has no signature `serving_default`.
    """

    def __init__(self, folder: str | Path) -> None:
        import tensorflow as tf

        try:
            with native_output_logged():
                # Held on to: the signature alone does not keep the variables alive.
                self._loaded = tf.saved_model.load(str(folder))
            self._serve = self._loaded.signatures["serving_default"]
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise ExportError(f"{folder} is no SavedModel to serve: {reason(error)}") from None
        self._specs = self._serve.structured_input_signature[1]
        self.input_names = tuple(self._specs)
        self.output_names = tuple(self._serve.structured_outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        import tensorflow as tf

        self._check_names(inputs)
        try:
            with native_output_logged():
                tensors = {
                    name: tf.constant(np.asarray(values).astype(spec.dtype.as_numpy_dtype))
                    for name, values in inputs.items()
                    for spec in [self._specs[name]]
                }
                answers = self._serve(**tensors)
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise ExportError(f"TensorFlow cannot run the model: {reason(error)}") from None
        return {name: np.asarray(values) for name, values in answers.items()}
