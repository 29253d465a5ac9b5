"""Open a source of samples and check it against the model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import keras

from lrf_core.data.archive import is_archive, unpacked
from lrf_core.data.arrays import open_npz
from lrf_core.data.check import Expected, expected_by
from lrf_core.data.folder import open_folder
from lrf_core.data.function import open_function
from lrf_core.data.npz import is_npz
from lrf_core.data.split import Data
from lrf_core.errors import DataError
from lrf_core.models.unroll import to_functional
from lrf_core.named_function import PATTERN
from lrf_core.storage.cache import named
from lrf_core.storage.inputs import file_at, folder_at

_FUNCTION = re.compile(PATTERN)
_KNOWN = "an .npz file, a folder of class folders of images, or module:function"
_KINDS = (
    "an .npz file, a folder of class folders of images, or a .tar, .tar.gz, .tgz or .zip of one"
)


def open_data(source: str, model: keras.Model, seed: int = 0) -> Data:
    """Read labelled samples and check that they fit the model.

    Args:
        source: an `.npz` file (`x`, `y` or `x_train`, `y_train`, `x_test`, `y_test`, with the
            names of the inputs in place of `x` where the model has several); a folder of class
            folders of images, or of `train/` and `test/` (or `val/`, `validation/`) with such
            folders, or an archive of such a folder (`.tar`, `.tar.gz`, `.tgz`, `.zip`); files are
            recognized by their content, and may lie alone in a folder; each on this machine or in
            S3 (`s3://bucket/key` or prefix); or `module:function` that returns a tf.data.Dataset
            of (x, y) or a (train, test) pair of them, x being a dict by the names of several
            inputs.
        model: the labels belong to its first output of shape (batch, classes).
        seed: of the 80/20 division where the source comes in one part.

    Raises:
        DataError: the source cannot be read or does not fit the model.
        StorageError: S3 cannot be reached, refuses the keys, or the cache cannot be written.
        ModelError: no output of the model has classes.
    """
    expected = expected_by(to_functional(model))
    file = file_at(source)
    if file is not None:
        return _open_file(source, file, expected, seed)
    folder = folder_at(source)
    if folder is not None:
        return _open_folder(source, folder, expected, seed)
    if _FUNCTION.fullmatch(source):
        return open_function(source, expected, seed)
    raise DataError(f"no data at {source}; give {_KNOWN}")


def _open_file(source: str, file: Path, expected: Expected, seed: int) -> Data:
    if is_npz(file):
        with named(source, file):
            return dataclasses.replace(open_npz(file, expected, seed), source=source)
    if is_archive(file):
        return _open_folder(source, unpacked(file, source), expected, seed)
    raise DataError(f"{source} is not a kind of data that is known; give {_KINDS}")


def _open_folder(source: str, folder: Path, expected: Expected, seed: int) -> Data:
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_file():
        return _open_file(source, entries[0], expected, seed)
    with named(source, folder):
        return dataclasses.replace(open_folder(folder, expected, seed), source=source)
