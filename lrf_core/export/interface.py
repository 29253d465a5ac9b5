"""What a model takes and answers, by the names that exported files use."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.errors import DataError
from lrf_core.models.structure import Samples, input_structure

Array = npt.NDArray[Any]

_OPEN_SIZE = 64


def input_names(model: keras.Model) -> tuple[str, ...]:
    """Names of the inputs in exported files, in Keras' flat order.

    They are the keys of a dict of inputs, else the names of the input layers. What
    TensorFlow allows in no name is spelled otherwise, with underscores.
    """
    names: list[str] = []
    for own in _own_names(model):
        name = re.sub(r"[^A-Za-z0-9_]", "_", own)
        if not name[0].isalpha() or keyword.iskeyword(name):
            name = f"input_{name.lstrip('_')}"
        count = sum(re.fullmatch(rf"{name}(_\d+)?", other) is not None for other in names)
        names.append(f"{name}_{count}" if count else name)
    return tuple(names)


def samples_by_name(model: keras.Model, samples: Samples) -> dict[str, Array]:
    """Samples of each input, `(n, *input_shape)`, under its name in exported files.

    Args:
        samples: an array, or a list or dict of arrays, in the structure of the model's own input. A
            model with a list of inputs also takes a dict of their names.

    Raises:
        DataError: the samples have another structure, other shapes or different numbers.
    """
    flat = [np.asarray(values) for values in _flat(model, samples)]
    for own, tensor, values in zip(_own_names(model), model.inputs, flat, strict=True):
        shape = tuple(tensor.shape[1:])
        fits = values.ndim == 1 + len(shape) and all(
            want in (None, have) for have, want in zip(values.shape[1:], shape, strict=True)
        )
        if not fits:
            raise DataError(
                f"the samples for input '{own}' have shape {values.shape}, but model "
                f"'{model.name}' takes {tuple(tensor.shape)}"
            )
    counts = {len(values) for values in flat}
    if len(counts) != 1 or not min(counts):
        raise DataError(
            f"the inputs of model '{model.name}' need the same number of samples, at least one; "
            f"got {', '.join(str(len(values)) for values in flat)}"
        )
    return dict(zip(input_names(model), flat, strict=True))


def random_samples(model: keras.Model, count: int, seed: int) -> Samples:
    """Samples `(count, *input_shape)` in the structure of the model's input, the same for a seed.

    Standard normal numbers for floats, zeros and ones for integers; 64 along axes left open.
    """
    random = np.random.default_rng(seed)

    def drawn(tensor: Any) -> Array:
        shape = (count, *(_OPEN_SIZE if size is None else size for size in tensor.shape[1:]))
        if tensor.dtype == "string":
            return np.full(shape, "")
        if "float" in tensor.dtype:
            return random.standard_normal(shape, dtype=np.float32)
        return random.integers(0, 2, shape).astype(tensor.dtype)

    return keras.tree.map_structure(drawn, input_structure(model))


def in_structure(model: keras.Model, named: Mapping[str, Any]) -> Any:
    """Inputs by name, as people give them to the model: one, or a list or dict."""
    flat = [named[name] for name in input_names(model)]
    return keras.tree.pack_sequence_as(input_structure(model), flat)


def as_called(model: keras.Model, inputs: Any) -> Any:
    """Inputs in the structure of `in_structure`, in a list where the model has a list of one."""
    own = None if isinstance(model, keras.Sequential) else model.input
    return [inputs] if isinstance(own, (list, tuple)) and len(own) == 1 else inputs


def by_output_name(answers: Any) -> dict[str, Any]:
    """What a model answers, a tensor or a list or dict of them, by names in exported files."""
    if isinstance(answers, Mapping):
        return dict(answers)
    return {f"output_{index}": values for index, values in enumerate(keras.tree.flatten(answers))}


def _own_names(model: keras.Model) -> tuple[str, ...]:
    """Names of the inputs as people know them, in Keras' flat order."""
    structure = input_structure(model)
    return tuple(
        # Not the name of the tensor, which is counted again in each process.
        str(path[0]) if isinstance(structure, Mapping) else tensor._keras_history.operation.name
        for path, tensor in keras.tree.flatten_with_path(structure)
    )


def _flat(model: keras.Model, samples: Samples) -> list[Any]:
    structure, names = input_structure(model), _own_names(model)
    as_dict = isinstance(structure, Mapping)
    if isinstance(samples, Mapping) and set(samples) == set(names):
        return [samples[name] for name in names]
    as_list = isinstance(structure, (list, tuple)) and isinstance(samples, (list, tuple))
    if as_list and len(samples) == len(names):
        return list(samples)
    if not keras.tree.is_nested(structure) and not keras.tree.is_nested(samples):
        return [samples]
    several = f"a {'dict' if as_dict else 'list or dict'} of arrays ({', '.join(names)})"
    wanted = several if keras.tree.is_nested(structure) else "one array"
    raise DataError(f"model '{model.name}' takes {wanted}; got {_described(samples)}")


def _described(samples: Samples) -> str:
    if isinstance(samples, Mapping):
        return f"a dict of {', '.join(map(str, samples)) or 'nothing'}"
    if isinstance(samples, (list, tuple)):
        return f"a {type(samples).__name__} of {len(samples)}"
    return "one array"
