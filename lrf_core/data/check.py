"""Checks of samples and labels against the model, before any work starts."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.progress import track
from lrf_core.data.split import Array, Data, Split
from lrf_core.errors import DataError, ModelError
from lrf_core.models.structure import Samples, input_structure, judged_output, sample_count

TEST_SHARE = 0.2  # of samples that come in one part
MIN_TRAIN, MIN_TEST = 8, 2
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ExpectedInput:
    """One input of a model.

    Attributes:
        name: as people name its array.
        shape: of one sample, without the batch axis; None if any length will do.
        text: whether it takes strings.
    """

    name: str
    shape: tuple[int | None, ...]
    text: bool


@dataclass(frozen=True)
class Expected:
    """What the model takes and answers.

    Attributes:
        inputs: in the order in which Keras flattens them.
        structure: the symbolic inputs as the model takes them: one, or a list or dict.
        classes: width of the output that labels belong to.
    """

    inputs: tuple[ExpectedInput, ...]
    structure: Any
    classes: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.inputs)


def expected_by(model: keras.Model) -> Expected:
    """What a Functional or Sequential model expects of its data.

    Labels belong to its first output of shape (batch, classes).

    Raises:
        ModelError: no output has classes.
    """
    structure = input_structure(model)
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    judged = judged_output(model)
    if judged is None:
        raise ModelError(
            f"model '{model.name}' answers with shape {', '.join(map(str, shapes))}; data with "
            "labels needs a classifier, with an output (batch, classes) of two or more classes. "
            "From Python, lrf.Data of unlabelled samples can still be analyzed, explored and "
            "decomposed"
        )
    inputs = tuple(
        ExpectedInput(
            name=str(path[0]) if isinstance(structure, dict) else tensor._keras_history[0].name,
            shape=tuple(tensor.shape[1:]),
            text=tensor.dtype == "string",
        )
        for path, tensor in keras.tree.flatten_with_path(structure)
    )
    return Expected(inputs, structure, classes=int(shapes[judged][1]))


def arranged(samples: Samples, where: str, expected: Expected) -> Samples:
    """Samples in the structure that the model takes.

    Args:
        samples: one array, a list or tuple in the model's order, or a dict by the inputs' names.

    Raises:
        DataError: arrays for other inputs than the model's.
    """
    if isinstance(samples, dict):
        missing = [name for name in expected.names if name not in samples]
        flat = [] if missing else [samples[name] for name in expected.names]
        found = f"inputs {', '.join(samples)}"
    else:
        flat = list(samples) if isinstance(samples, (list, tuple)) else [samples]
        found = "one array for each sample" if len(flat) == 1 else f"{len(flat)} arrays"
        missing = [] if len(flat) == len(expected.inputs) else list(expected.names)
    in_order = isinstance(samples, dict) or not isinstance(expected.structure, dict)
    if missing or not (in_order or len(flat) == 1):
        raise DataError(
            f"{where} has {found}, but the model takes {', '.join(expected.names)}; give a dict "
            "with an array for each of these names"
        )
    return keras.tree.pack_sequence_as(expected.structure, flat)


def check_form(samples: Samples, labels: Array, where: str, expected: Expected) -> None:
    """Raise DataError unless types and shapes fit the model; no value is looked at.

    Args:
        samples: in any form that `arranged` takes.
        labels: see `class_ids`.
    """
    samples = arranged(samples, where, expected)
    _check_samples_form(samples, f"{where} samples", expected)
    count = sample_count(samples)
    if labels.ndim and len(labels) != count:
        raise DataError(f"{where} has {count} samples but {len(labels)} labels; give one for each")
    _check_labels_form(labels, f"{where} labels", expected)


def _check_samples_form(samples: Samples, where: str, expected: Expected) -> None:
    arrays = keras.tree.flatten(samples)
    for values, wanted in zip(arrays, expected.inputs, strict=True):
        name = _name_of(wanted, where, expected)
        _check_array(values, name, wanted)
        if len(values) != len(arrays[0]):
            raise DataError(
                f"{name} has {len(values)} samples, but '{expected.names[0]}' has "
                f"{len(arrays[0])}; give one of each for every sample"
            )


def _name_of(one: ExpectedInput, where: str, expected: Expected) -> str:
    return where if len(expected.inputs) == 1 else f"{where} '{one.name}'"


def _check_array(values: Array, where: str, wanted: ExpectedInput) -> None:
    kinds, kind_names = ("SU", "text") if wanted.text else ("biuf", "numbers (uint8, float32, ...)")
    if values.dtype.kind not in kinds:
        raise DataError(f"{where} holds {values.dtype} values; samples must be {kind_names}")
    found = values.shape[1:]
    if values.ndim == 0 or not _fits(found, wanted.shape):
        raise DataError(
            f"{where} has shape {values.shape}, but the model takes samples of shape "
            f"{_text(wanted.shape)}{_shape_hint(found, wanted.shape)}"
        )


def class_ids(labels: Array, where: str, expected: Expected) -> Array:
    """Class ids `(n,)` int64 of labels `(n,)`, `(n, 1)` or one-hot `(n, classes)`.

    Raises:
        DataError: the labels are of another form, or do not fit the model's output.
    """
    _check_labels_form(labels, where, expected)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _ids_of_one_hot(labels, where)
    ids = labels.reshape(-1)
    if ids.dtype.kind == "f" and not (np.isfinite(ids).all() and (ids == np.rint(ids)).all()):
        raise DataError(f"{where} holds fractions or NaN; labels must be whole class ids")
    ids = ids.astype(np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= expected.classes):
        hint = "; subtract 1 from each" if (ids.min(), ids.max()) == (1, expected.classes) else ""
        raise DataError(
            f"{where} holds class ids {ids.min()} to {ids.max()}, but the model has "
            f"{expected.classes} outputs, for ids 0 to {expected.classes - 1}{hint}"
        )
    return ids


def _check_labels_form(labels: Array, where: str, expected: Expected) -> None:
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {labels.dtype} values; labels must be class ids or one-hot")
    if labels.ndim not in (1, 2):
        raise DataError(
            f"{where} has shape {labels.shape}; labels must be class ids (n,) or one-hot "
            f"(n, {expected.classes})"
        )
    if labels.ndim == 2 and labels.shape[1] not in (1, expected.classes):
        raise DataError(
            f"{where} is one-hot for {labels.shape[1]} classes, but the model has "
            f"{expected.classes} outputs"
        )


def labelled(samples: Samples, labels: Array, where: str, expected: Expected) -> Split:
    """A checked split of samples `(n, *shape)` and labels in any known form. Raises DataError."""
    check_form(samples, labels, where, expected)
    samples = arranged(samples, where, expected)
    for values, wanted in zip(keras.tree.flatten(samples), expected.inputs, strict=True):
        if values.dtype.kind == "f":
            _check_finite(values, _name_of(wanted, f"{where} samples", expected))
    return Split.of(samples, class_ids(labels, f"{where} labels", expected))


def divided(whole: Split, seed: int) -> tuple[Split, Split]:
    """Training and test part (20%) of a labelled split, each class divided alike.

    A class of two or more samples has at least one in either part.
    """
    labels = np.asarray(whole.labels)
    random = np.random.default_rng(seed)
    in_test = np.zeros(whole.count, dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        share = round(TEST_SHARE * len(members))
        in_test[members[: max(share, 1) if len(members) > 1 else 0]] = True
    return whole.take(np.flatnonzero(~in_test)), whole.take(np.flatnonzero(in_test))


def data_of_arrays(
    x_train: Samples,
    y_train: npt.ArrayLike,
    x_test: Samples | None,
    y_test: npt.ArrayLike | None,
    class_names: Sequence[str] | None,
    seed: int,
) -> Data:
    """See `Data.from_arrays`."""
    if (x_test is None) != (y_test is None):
        raise DataError("give both x_test and y_test, or none of them")
    parts = {"train": (x_train, y_train)}
    if x_test is not None and y_test is not None:
        parts["test"] = (x_test, y_test)
    arrays: dict[str, Array] = {}
    splits = []
    for name, (samples, labels) in parts.items():
        samples = keras.tree.map_structure(np.asarray, samples)
        ids = _ids_of(np.asarray(labels), f"y_{name}")
        flat = keras.tree.flatten(samples)
        if any(len(values) != len(ids) for values in flat):
            found = ", ".join(str(len(values)) for values in flat)
            raise DataError(f"x_{name} has {found} samples, y_{name} {len(ids)} labels")
        arrays |= {f"x{i}_{name}": values for i, values in enumerate(flat)} | {f"y_{name}": ids}
        splits.append(Split.of(samples, ids))
    train, test = splits if len(splits) == 2 else divided(splits[0], seed)
    check_counts(train, test, "arrays")
    classes = 1 + max(int(arrays[f"y_{name}"].max()) for name in parts)
    names = tuple(class_names or map(str, range(classes)))
    if len(names) < classes:
        raise DataError(f"there are {len(names)} class names, but labels up to {classes - 1}")
    return Data(train, test, names, "arrays", digest_of_arrays(arrays))


def _ids_of(labels: Array, where: str) -> Array:
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _ids_of_one_hot(labels, where)
    ids = labels.reshape(-1)
    if labels.ndim > 2 or labels.dtype.kind not in "biuf" or not np.equal(ids, np.rint(ids)).all():
        raise DataError(f"{where} must hold class ids (n,) or one-hot labels (n, classes)")
    if ids.size and ids.min() < 0:
        raise DataError(f"{where} holds class id {ids.min()}; ids start at 0")
    return ids.astype(np.int64)


def check_counts(train: Split, test: Split, where: str) -> None:
    """Raise DataError when there are too few samples to train on or to judge by."""
    if train.count < MIN_TRAIN or test.count < MIN_TEST:
        raise DataError(
            f"{where}: too few samples: {train.count} to train on and {test.count} to test with; "
            f"at least {MIN_TRAIN} and {MIN_TEST} are needed"
        )


def digest_of_arrays(arrays: Mapping[str, Array]) -> str:
    """sha256 (hex) of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        for start in track(range(0, len(values), _ROWS_AT_ONCE), f"Digest of {name}"):
            digest.update(np.ascontiguousarray(values[start : start + _ROWS_AT_ONCE]).data)
    return digest.hexdigest()


def _check_finite(samples: Array, where: str) -> None:
    for start in track(range(0, len(samples), _ROWS_AT_ONCE), "Checking for NaN"):
        finite = np.isfinite(samples[start : start + _ROWS_AT_ONCE])
        if not finite.all():
            first = start + int(np.argwhere(~finite)[0][0])
            raise DataError(
                f"{where}: sample {first} holds NaN or infinite values; remove or repair it"
            )


def _ids_of_one_hot(labels: Array, where: str) -> Array:
    if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
        raise DataError(
            f"{where} has shape {labels.shape} but is not one-hot (a single 1 in each row); give "
            "class ids or one-hot labels"
        )
    ids: Array = labels.argmax(axis=1).astype(np.int64)
    return ids


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(
        want in (None, have) for have, want in zip(found, shape, strict=True)
    )


def _text(shape: tuple[int | None, ...]) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _shape_hint(found: tuple[int, ...], shape: tuple[int | None, ...]) -> str:
    if shape and shape[-1] == 1 and _fits(found, shape[:-1]):
        return "; add the channel axis: x[..., None]"
    if len(found) == len(shape) and len(shape) > 1:
        for order in itertools.permutations(range(len(shape))):
            if _fits(tuple(found[axis] for axis in order), shape):
                axes = (0, *(axis + 1 for axis in order))
                return f"; the axes are in another order: np.transpose(x, {axes})"
    sizes = [size for size in shape if size is not None]
    if len(sizes) == len(shape) and math.prod(found) == math.prod(sizes):
        return f"; give x.reshape(-1, {', '.join(map(str, shape))})"
    return "; resize the samples to that shape"
