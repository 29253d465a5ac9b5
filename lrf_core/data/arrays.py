"""Samples and labels in an `.npz` file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lrf_core.data.check import (
    Expected,
    check_counts,
    check_form,
    digest_of_arrays,
    divided,
    labelled,
)
from lrf_core.data.npz import open_archive
from lrf_core.data.split import Array, Data
from lrf_core.errors import DataError

_Part = TypeVar("_Part")


def open_npz(path: Path, expected: Expected, seed: int) -> Data:
    """Read `x` and `y` (divided 80/20 by `seed`) or `x_train`, `y_train`, `x_test`, `y_test`.

    Samples are `(n, *input_shape)`, labels class ids `(n,)` or one-hot `(n, classes)`. For a model
    with several inputs there is an array under the name of each in place of `x`.

    Raises:
        DataError: the file cannot be read or does not fit the model.
    """
    arrays = _read(path, expected)
    parts = _parts(path, arrays, expected, labelled)
    train, test = parts if len(parts) == 2 else divided(parts[0], seed)
    check_counts(train, test, str(path))
    return Data(
        train=train,
        test=test,
        class_names=tuple(str(label) for label in range(expected.classes)),
        source=str(path),
        digest=digest_of_arrays(arrays),
    )


def _parts(
    path: Path, arrays: dict[str, Array], expected: Expected, made: Callable[..., _Part]
) -> list[_Part]:
    """What `made` makes of the whole, or of train and test: samples, labels, where, expected."""
    keys = dict(zip(expected.names, _own_names(expected), strict=True))
    suffixes = {"_train": " (train)", "_test": " (test)"} if "y_train" in arrays else {"": ""}
    return [
        made(
            {name: arrays[key + suffix] for name, key in keys.items()},
            arrays[f"y{suffix}"],
            f"{path}{shown}",
            expected,
        )
        for suffix, shown in suffixes.items()
    ]


def _read(path: Path, expected: Expected) -> dict[str, Array]:
    with open_archive(path) as archive:
        names = _names(path, archive.names, _own_names(expected))
        found = {name: archive.stored(name) for name in names}
        # What does not fit the model is not read: it may be far larger than what does.
        _parts(path, {name: each.form() for name, each in found.items()}, expected, check_form)
        return archive.read(list(found.values()))


def _own_names(expected: Expected) -> tuple[str, ...]:
    """Names in the file of the inputs' arrays."""
    return ("x",) if len(expected.inputs) == 1 else expected.names


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
