"""The state of training, kept so that it goes on where it was killed.

A checkpoint is one `.npz` file of plain arrays in a store, written whole or not at all, under the
digest of everything that decides the result. One of other models, data or settings is never found.
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from lrf_core.artifacts import EpochRecord, Record, digest_of, versions
from lrf_core.data.split import Array
from lrf_core.errors import StorageError
from lrf_core.storage import DamagedObjectError, MissingObjectError, Store, open_store

_logger = logging.getLogger("lrf")

_FOLDER = "finetune-1"
_ABOUT = "about"
_GROUPS = ("learner", "optimizer", "best")


class Progress(Record):
    """How far training has come.

    Attributes:
        epoch: that is being trained, from 1.
        batch: of this epoch that comes next.
        loss_sum: of the batches of this epoch that are done.
        steps, seconds: of training so far, in all runs.
        curve: of the epochs that are done, epoch 0 first.
        best_epoch: whose weights are kept.
        stopped: why training ended before its last epoch; empty if it did not.
        done: whether nothing is left to train.
    """

    schema_version: Literal[1] = 1
    epoch: int = 1
    batch: int = 0
    loss_sum: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    curve: tuple[EpochRecord, ...] = ()
    best_epoch: int = 0
    stopped: str = ""
    done: bool = False


@dataclass
class TrainingState:
    """Progress, and the arrays that belong to it.

    Attributes:
        learner, optimizer: values of their variables, in Keras' order; empty once done.
        best: weights of the best epoch.
    """

    progress: Progress
    best: list[Array]
    learner: list[Array] = field(default_factory=list)
    optimizer: list[Array] = field(default_factory=list)


class Checkpoints:
    """Where the state of one training is kept; nowhere, if there is no store."""

    def __init__(self, store: Store | None, decisive: dict[str, Any], writes: bool = True) -> None:
        """Args:
        decisive: everything that decides the result, as JSON.
        writes: False for the workers that only read.
        """
        self._store, self._writes = store, writes
        digest = digest_of({**decisive, "versions": versions()})
        self._key = f"{_FOLDER}/{digest[:2]}/{digest}.npz"

    def load(self) -> TrainingState | None:
        """The state that was kept; None if there is none, or none that can be read.

        Raises:
            StorageError: the store cannot be read.
        """
        if self._store is None:
            return None
        try:
            return _unpacked(self._store.get(self._key))
        except MissingObjectError:
            return None
        except DamagedObjectError as error:
            where = self._store.url(self._key)
            _logger.warning("checkpoint %s is not used, training starts again: %s", where, error)
            return None

    def save(self, state: TrainingState) -> None:
        """Keep the state in place of the last one.

        Where that fails (the disk is full, say), the last one stays, and training goes on.
        """
        if self._store is None or not self._writes:
            return
        try:
            self._store.put(self._key, _packed(state))
        except StorageError as error:
            _logger.warning(
                "the state of training after %d steps is not kept: %s; training goes on, and the "
                "state kept before stays",
                *(state.progress.steps, error),
            )


def open_checkpoints(
    uri: str | Literal[False] | None, decisive: dict[str, Any], *, writes: bool = True
) -> Checkpoints:
    """Checkpoints at an address, once it is known that it can be used.

    Args:
        uri: see `storage.open_store`; None or False for none.
        writes: False for the workers that only read.

    Raises:
        StorageError: it cannot be reached or used.
    """
    if not uri:
        return Checkpoints(None, decisive)
    store = open_store(uri)
    try:
        store.check()
    except StorageError as error:
        # Of its own kind: a store that does not answer may answer later.
        raise type(error)(
            f"checkpoints of fine-tuning cannot be kept: {error}; give another place in "
            "finetune.checkpoint, or false for none"
        ) from None
    return Checkpoints(store, decisive, writes)


def values_of(variables: Sequence[Any]) -> list[Array]:
    """Copies of the values of Keras variables, as arrays that a file can hold."""
    found = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    # NumPy knows no bfloat16.
    return [value.astype(np.float32) if value.dtype.kind == "V" else value for value in found]


def assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    """Give Keras variables these values. Raises ValueError where they do not fit."""
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise ValueError("the state that was kept does not fit the model")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _packed(state: TrainingState) -> bytes:
    arrays = {_ABOUT: np.frombuffer(state.progress.model_dump_json().encode(), np.uint8)}
    for group in _GROUPS:
        for index, value in enumerate(getattr(state, group)):
            arrays[f"{group}/{index}"] = value
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _unpacked(content: bytes) -> TrainingState:
    """Raises DamagedObjectError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            progress = Progress.model_validate_json(arrays[_ABOUT].tobytes())
            groups = {
                group: [
                    arrays[f"{group}/{index}"]
                    for index in range(sum(name.startswith(f"{group}/") for name in arrays.files))
                ]
                for group in _GROUPS
            }
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedObjectError(f"it is no checkpoint of this version: {reason}") from None
    return TrainingState(progress, **groups)
