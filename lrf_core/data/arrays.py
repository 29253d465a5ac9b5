"""Samples and labels in an `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lrf_core.data.check import (
    Expected,
    check_counts,
    digest_of_arrays,
    divided,
    labelled,
)
from lrf_core.data.split import Array, Data
from lrf_core.errors import DataError
from lrf_core.progress import track

_WHOLE = ("x", "y")
_PARTS = ("x_train", "y_train", "x_test", "y_test")


def open_npz(path: Path, expected: Expected, seed: int) -> Data:
    """Read `x` and `y` (divided 80/20 by `seed`) or `x_train`, `y_train`, `x_test`, `y_test`.

    Samples are `(n, *input_shape)`, labels class ids `(n,)` or one-hot `(n, classes)`.

    Raises:
        DataError: the file cannot be read or does not fit the model.
    """
    arrays = _read(path)
    if all(name in arrays for name in _PARTS):
        train = labelled(arrays["x_train"], arrays["y_train"], f"{path} (train)", expected)
        test = labelled(arrays["x_test"], arrays["y_test"], f"{path} (test)", expected)
    else:
        train, test = divided(labelled(arrays["x"], arrays["y"], str(path), expected), seed)
    check_counts(train, test, str(path))
    return Data(
        train=train,
        test=test,
        class_names=tuple(str(label) for label in range(expected.classes)),
        source=str(path),
        digest=digest_of_arrays(arrays),
    )


def _read(path: Path) -> dict[str, Array]:
    try:
        # Never allow_pickle: an object array is code from whoever made the file.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array; save x and y with np.savez(...)")
        with archive:
            names = _names(path, archive.files)
            return {name: archive[name] for name in track(names, "Reading samples")}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are not read; save plain number arrays"
        raise DataError(f"cannot read {path} as an .npz file: {reason}") from None


def _names(path: Path, found: list[str]) -> tuple[str, ...]:
    for names in (_PARTS, _WHOLE):
        if set(names) <= set(found):
            return names
    listed = ", ".join(found) or "nothing"
    if "x" in found or {"x_train", "x_test"} <= set(found):
        missing = "y" if "x" in found else "y_train and y_test"
        raise DataError(
            f"{path} has no labels {missing} (found: {listed}); fine-tuning and the accuracy "
            "check need them"
        )
    raise DataError(
        f"{path} must hold the arrays x and y, or x_train, y_train, x_test and y_test; "
        f"found: {listed}"
    )
