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
from lrf_core.data.split import Array, Data, Split
from lrf_core.errors import DataError
from lrf_core.progress import track


def open_npz(path: Path, expected: Expected, seed: int) -> Data:
    """Read `x` and `y` (divided 80/20 by `seed`) or `x_train`, `y_train`, `x_test`, `y_test`.

    Samples are `(n, *input_shape)`, labels class ids `(n,)` or one-hot `(n, classes)`. For a model
    with several inputs there is an array under the name of each in place of `x`.

    Raises:
        DataError: the file cannot be read or does not fit the model.
    """
    samples = ("x",) if len(expected.inputs) == 1 else expected.names
    arrays = _read(path, samples)

    def part(suffix: str, where: str) -> Split:
        x = {name: arrays[own + suffix] for name, own in zip(expected.names, samples, strict=True)}
        return labelled(x, arrays[f"y{suffix}"], where, expected)

    if "y_train" in arrays:
        train, test = part("_train", f"{path} (train)"), part("_test", f"{path} (test)")
    else:
        train, test = divided(part("", str(path)), seed)
    check_counts(train, test, str(path))
    return Data(
        train=train,
        test=test,
        class_names=tuple(str(label) for label in range(expected.classes)),
        source=str(path),
        digest=digest_of_arrays(arrays),
    )


def _read(path: Path, samples: tuple[str, ...]) -> dict[str, Array]:
    try:
        # Never allow_pickle: an object array is code from whoever made the file.
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array; save x and y with np.savez(...)")
        with archive:
            names = _names(path, archive.files, samples)
            return {
                name: _array(path, name, archive[name]) for name in track(names, "Reading samples")
            }
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        if "allow_pickle" in reason:
            reason = "it holds Python objects, which are not read; save plain number arrays"
        raise DataError(f"cannot read {path} as an .npz file: {reason}") from None


def _array(path: Path, name: str, content: Array | bytes) -> Array:
    # NumPy hands out as bytes what is no array.
    if isinstance(content, bytes):
        raise DataError(f"{path}: '{name}' in it is no array; save arrays with np.savez(...)")
    return content


def _names(path: Path, found: list[str], samples: tuple[str, ...]) -> tuple[str, ...]:
    whole = (*samples, "y")
    parts = tuple(f"{name}_{part}" for part in ("train", "test") for name in whole)
    for names in (parts, whole):
        if set(names) <= set(found):
            return names
    listed = ", ".join(found) or "nothing"
    in_parts = {name for name in parts if not name.startswith("y_")} <= set(found)
    if in_parts or set(samples) <= set(found):
        missing = "y_train and y_test" if in_parts else "y"
        raise DataError(
            f"{path} has no labels {missing} (found: {listed}); fine-tuning and the accuracy "
            "check need them"
        )
    raise DataError(
        f"{path} must hold the arrays {_listed(whole)}, or {_listed(parts)}; found: {listed}"
    )


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
