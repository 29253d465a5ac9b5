"""Walk a model's layers, through nested models, and watch them being called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.models.functional import Functional  # the only way to name the class

from lrf_core.models.structure import SampleShape, Shape, input_structure

_OPEN_SIZE = 64  # for sizes that the model leaves open


@dataclass
class Calls:
    """The shapes one layer was called with, without the batch axis, one entry per call."""

    inputs: list[Shape] = field(default_factory=list)
    outputs: list[Shape] = field(default_factory=list)


def is_graph(layer: keras.Layer) -> bool:
    """Whether a layer is a built model of which Keras knows the graph: Functional or Sequential.

    A subclass of either that overrides `call` does something else than its graph.
    """
    if isinstance(layer, keras.Sequential):
        return type(layer).call is keras.Sequential.call and hasattr(layer, "inputs")
    return isinstance(layer, Functional) and type(layer).call is Functional.call


def walk(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """Yield (path, layer) for every layer that is no model, each layer object once.

    Paths join the names of nested models and the layer by "/"; a layer that is used in several
    places goes by the first.
    """
    seen: set[int] = set()
    for path, layer in _walk_all(model, prefix):
        if id(layer) not in seen:
            seen.add(id(layer))
            yield path, layer


def _walk_all(model: keras.Model, prefix: str) -> Iterator[tuple[str, keras.Layer]]:
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if is_graph(layer):
            yield from _walk_all(layer, f"{path}/")
        else:
            yield path, layer


@contextmanager
def watching(
    layers: Mapping[str, keras.Layer], on_call: Callable[[str, Any, Any], Any]
) -> Iterator[None]:
    """While open, `on_call(path, inputs, outputs)` sees each call; what it returns is passed on.

    Works for any model that calls its layers: shared layers are seen once per call, and layers
    inside nested models or wrappers are seen too.
    """
    try:
        for path, layer in layers.items():
            layer.call = _watched(path, layer.call, on_call)
        yield
    finally:
        for layer in layers.values():
            vars(layer).pop("call", None)  # the class's own method shows again


def _watched(
    path: str, call: Callable[..., Any], on_call: Callable[[str, Any, Any], Any]
) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        inputs = args[0] if args else next(iter(kwargs.values()))
        return on_call(path, inputs, call(*args, **kwargs))

    return watched


def trace(
    model: keras.Model, layers: Mapping[str, keras.Layer], input_shape: SampleShape | None = None
) -> dict[str, Calls]:
    """Run one blank sample through the model and note the shapes each layer is called with.

    Calls with several tensors are left out.

    Args:
        input_shape: of one sample, where the model leaves sizes open; the sizes the model gives
            otherwise, and 64 for those it leaves open.
    """
    calls = {path: Calls() for path in layers}

    def note(path: str, inputs: Any, outputs: Any) -> Any:
        if not (keras.tree.is_nested(inputs) or keras.tree.is_nested(outputs)):
            calls[path].inputs.append(tuple(inputs.shape[1:]))
            calls[path].outputs.append(tuple(outputs.shape[1:]))
        return outputs

    with watching(layers, note):
        model(blank_inputs(model, input_shape), training=False)
    return calls


def blank_inputs(model: keras.Model, input_shape: SampleShape | None = None) -> Any:
    """One sample of zeros with the structure, shapes and dtypes of the model's inputs."""
    shapes = _shapes_of(model, input_shape)
    blanks = [_blank(tensor, shape) for tensor, shape in zip(model.inputs, shapes, strict=True)]
    return keras.tree.pack_sequence_as(input_structure(model), blanks)


def _shapes_of(model: keras.Model, input_shape: SampleShape | None) -> Sequence[Any]:
    if input_shape is None:
        return [
            tuple(_OPEN_SIZE if size is None else size for size in tensor.shape[1:])
            for tensor in model.inputs
        ]
    single = all(isinstance(size, int) for size in input_shape)
    return [input_shape] if single else input_shape


def _blank(tensor: Any, shape: Any) -> Any:
    batch = tensor.shape[0] or 1
    if tensor.dtype == "string":
        return np.full((batch, *shape), "")
    return np.zeros((batch, *shape), dtype=keras.backend.standardize_dtype(tensor.dtype))
