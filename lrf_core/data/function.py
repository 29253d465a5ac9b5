"""Samples from a function of the user's, `module:function`, that returns tf.data datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lrf_core.console.progress import work
from lrf_core.data.check import (
    Expected,
    arranged,
    check_counts,
    digest_of_arrays,
    divided,
    labelled,
)
from lrf_core.data.split import Array, Data
from lrf_core.errors import DataError
from lrf_core.models.structure import Samples, joined
from lrf_core.named_function import function_named, summarize_error, working_directory_importable

_BATCH = 256
_WANTED = "a tf.data.Dataset of (x, y), or a pair (train, test) of them"


def open_function(source: str, expected: Expected, seed: int) -> Data:
    """Call `module:function` and read its dataset (divided 80/20 by `seed`) or (train, test).

    The working directory is searched for the module. The global seeds are set before the call, so
    that a dataset that shuffles gives the same samples each time.

    Raises:
        DataError: no such module or function, it failed, or its datasets do not fit the model.
    """
    keras.utils.set_random_seed(seed)
    with working_directory_importable():
        datasets = _datasets(source, _call(source, function_named(source, DataError)))
        parts = [
            _read(dataset, f"{source} ({name})", expected) for name, dataset in datasets.items()
        ]
    splits = [
        labelled(x, y, f"{source} ({name})", expected)
        for name, (x, y) in zip(datasets, parts, strict=True)
    ]
    train, test = splits if len(splits) == 2 else divided(splits[0], seed)
    check_counts(train, test, source)
    arrays = {
        f"{axis}_{name}": values
        for name, (x, y) in zip(datasets, parts, strict=True)
        for axis, values in (*_named(x), ("y", y))
    }
    return Data(
        train=train,
        test=test,
        class_names=tuple(str(label) for label in range(expected.classes)),
        source=source,
        digest=digest_of_arrays(arrays),
    )


def _named(samples: Samples) -> list[tuple[str, Array]]:
    """The arrays under the names that the digest knows them by."""
    if not keras.tree.is_nested(samples):
        return [("x", samples)]
    paths = keras.tree.flatten_with_path(samples)
    return [("_".join(["x", *map(str, path)]), values) for path, values in paths]


def _call(source: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        raise DataError(f"{source} failed: {summarize_error(error)}") from error


def _datasets(source: str, result: Any) -> dict[str, Any]:
    import tensorflow as tf  # only data given as tf.data needs it

    if isinstance(result, tf.data.Dataset):
        return {"all": result}
    if (
        isinstance(result, (tuple, list))
        and len(result) == 2
        and all(isinstance(part, tf.data.Dataset) for part in result)
    ):
        return {"train": result[0], "test": result[1]}
    found = type(result).__name__
    if isinstance(result, (tuple, list)):
        found += f" of {', '.join(type(part).__name__ for part in result) or 'nothing'}"
    raise DataError(f"{source} returned a {found}; it must return {_WANTED}")


def _read(dataset: Any, where: str, expected: Expected) -> tuple[Samples, Array]:
    spec = dataset.element_spec
    if not (isinstance(spec, tuple) and len(spec) == 2 and hasattr(spec[1], "shape")):
        raise DataError(f"{where} yields {spec}; its elements must be pairs (x, y) of tensors")
    if bool(dataset.cardinality() == -1):  # tf.data.INFINITE_CARDINALITY
        raise DataError(f"{where} never ends; leave out .repeat()")
    if not _is_batched(arranged(spec[0], where, expected), where, expected):
        dataset = dataset.batch(_BATCH)
    samples, labels = [], []
    batches = max(int(dataset.cardinality()), 0)  # negative when it is not known
    try:
        with work(f"Reading {where}", max(batches, 1)) as advance:
            for x, y in dataset.as_numpy_iterator():
                samples.append(keras.tree.map_structure(_without_objects, x))
                labels.append(y)
                if batches:
                    advance(1)
    except Exception as error:
        raise DataError(f"{where} failed while it was read: {summarize_error(error)}") from error
    if not samples:
        raise DataError(f"{where} is empty; it must yield (x, y)")
    return joined(samples), np.concatenate(labels)


def _is_batched(specs: Any, where: str, expected: Expected) -> bool:
    """Whether every sample comes with a batch axis. Raises DataError where some axes do not fit."""
    found = [spec.shape for spec in keras.tree.flatten(specs)]
    wanted = [one.shape for one in expected.inputs]
    extra = [
        None if shape.rank is None else shape.rank - len(want)
        for shape, want in zip(found, wanted, strict=True)
    ]
    if set(extra) <= {1, None}:
        return True
    if set(extra) == {0}:
        return False
    shapes = ", ".join(str(shape) for shape in found)
    raise DataError(
        f"{where} yields samples of shape {shapes}, but the model takes "
        f"{', '.join(map(str, wanted))}; batched or not, they must fit"
    )


def _without_objects(values: Any) -> Any:
    """Strings come from tf.data as objects; as bytes they are an array like any other."""
    return values.astype(np.bytes_) if values.dtype == object else values
