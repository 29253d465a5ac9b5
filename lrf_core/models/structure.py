"""Samples and answers of models with one or several inputs and outputs.

Either is one array, or a list, tuple or dict of arrays; all of them have the samples on their first
axis, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# One array `(n, ...)`, or a list, tuple or dict of such arrays, one for each input of a model.
Samples = Any
Shape = tuple[int, ...]
SampleShape = Shape | tuple[Shape, ...]


def sample_count(samples: Samples) -> int:
    """How many samples there are."""
    return len(keras.tree.flatten(samples)[0])


def chosen(samples: Samples, which: Any) -> Samples:
    """The samples at indices `(n,)` or in a slice, in the same structure."""
    return keras.tree.map_structure(lambda values: values[which], samples)


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples one after the other, in the structure of the first part."""
    return keras.tree.map_structure(lambda *values: np.concatenate(values), *parts)


def sample_shape(samples: Samples) -> SampleShape:
    """The shape of one sample; of several arrays, one shape for each, in Keras' flat order."""
    shapes = tuple(tuple(values.shape[1:]) for values in keras.tree.flatten(samples))
    return shapes if keras.tree.is_nested(samples) else shapes[0]


def input_structure(model: keras.Model) -> Any:
    """The symbolic inputs of a graph, as its calls take them: a tensor, or a list or dict."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    single = isinstance(model.input, (list, tuple)) and len(model.input) == 1
    return model.input[0] if single else model.input


def judged_output(model: keras.Model) -> int | None:
    """Which output labels belong to: the first of shape (batch, classes), two classes or more."""
    for index, tensor in enumerate(model.outputs):
        if len(tensor.shape) == 2 and (tensor.shape[1] or 0) > 1:
            return index
    return None


def judged(model: keras.Model, answers: Any) -> Array:
    """The answers of the output that labels belong to; of the first where no output has classes."""
    return np.asarray(keras.tree.flatten(answers)[judged_output(model) or 0])
