"""Open a source of samples and check it against the model."""

from __future__ import annotations

import re
from pathlib import Path

import keras

from lrf_core.data.arrays import open_npz
from lrf_core.data.check import expected_by
from lrf_core.data.folder import open_folder
from lrf_core.data.function import open_function
from lrf_core.data.split import Data
from lrf_core.errors import DataError
from lrf_core.models.unroll import as_graph
from lrf_core.named_function import PATTERN

_FUNCTION = re.compile(PATTERN)
_KNOWN = "an .npz file, a folder of class folders of images, or module:function"


def open_data(source: str, model: keras.Model, seed: int = 0) -> Data:
    """Read labelled samples and check that they fit the model.

    Args:
        source: an `.npz` file (`x`, `y` or `x_train`, `y_train`, `x_test`, `y_test`, with the
            names of the inputs in place of `x` where the model has several); a folder of class
            folders of images, or of `train/` and `test/` (or `val/`, `validation/`) with such
            folders; or `module:function` that returns a tf.data.Dataset of (x, y) or a
            (train, test) pair of them, x being a dict by the names of several inputs.
        model: the labels belong to its first output of shape (batch, classes).
        seed: of the 80/20 division where the source comes in one part.

    Raises:
        DataError: the source cannot be read or does not fit the model.
        ModelError: no output of the model has classes.
    """
    expected = expected_by(as_graph(model))
    path = Path(source)
    if source and path.is_dir():
        return open_folder(path, expected, seed)
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{source} is not a kind of data that is known; give {_KNOWN}")
        return open_npz(path, expected, seed)
    if _FUNCTION.fullmatch(source):
        return open_function(source, expected, seed)
    raise DataError(f"no data at {source}; give {_KNOWN}")
