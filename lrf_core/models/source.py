"""Find the files of a model that a user names: on this machine, or fetched from object storage."""

from __future__ import annotations

from pathlib import Path

from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import ModelError
from lrf_core.storage.inputs import file_at, is_remote

KNOWN = "a .keras file, an .h5 file, or a .json config together with a weights file"


def model_at(source: str) -> Path:
    """The path of a model; of what is in S3, of a copy on this machine.

    Args:
        source: a path, `s3://bucket/key`, or `s3://bucket/prefix` with `model.keras` below it.

    Raises:
        ModelError: there is none in S3; of a path, whoever reads it says so.
        StorageError: S3 cannot be reached, refuses the keys, or the cache cannot be written.
    """
    if not is_remote(source):
        return _local(source)
    file = file_at(source) or file_at(f"{source.rstrip('/')}/{MODEL_FILE}")
    if file is None:
        raise ModelError(
            f"no model at {source}; give the address of {KNOWN}, or what comes before "
            f"/{MODEL_FILE} in one"
        )
    return file


def weights_at(source: str) -> Path:
    """The path of a file of weights, as `model_at` gives that of a model."""
    if not is_remote(source):
        return _local(source)
    file = file_at(source)
    if file is None:
        raise ModelError(f"no weights at {source}; give a .weights.h5, .h5 or .keras file")
    return file


def _local(source: str) -> Path:
    return file_at(source) or Path(source.removeprefix("file://"))
