"""See what layers take in and give out while a model runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from lrf_core.models.structure import Samples, Shape
from lrf_core.models.trace import Calls, walk, watching


@contextmanager
def tapped(
    layers: Mapping[str, keras.Layer],
    on_product: Callable[[str, Any], None],
    on_input: Callable[[str, Any], None],
) -> Iterator[None]:
    """While open, see what convolutions and dense layers work on at each call.

    Products are what the kernel and the bias give, before the layer's own activation: what a
    replacement changes, and what its errors are judged at. They are shown before anything is
    computed from them, the inputs after the call.
    """

    def noting(path: str, activation: Any) -> Callable[[Any], Any]:
        def noted(values: Any) -> Any:
            on_product(path, values)
            return values if activation is None else activation(values)

        return noted

    def seen(path: str, inputs: Any, outputs: Any) -> Any:
        on_input(path, inputs)
        return outputs

    own = {path: layer.activation for path, layer in layers.items()}
    try:
        for path, layer in layers.items():
            # Past Keras' own setter, which would track an activation that is a layer once more.
            vars(layer)["activation"] = noting(path, own[path])
        with watching(layers, seen):
            yield
    finally:
        for path, layer in layers.items():
            vars(layer)["activation"] = own[path]


@dataclass
class Survey:
    """What one run of one batch tells about a model.

    Attributes:
        calls: shapes that each layer asked for is called with.
        bytes_per_sample: of all feature maps together, in float32.
        answers: shape of one sample's answer at each output, in the order in which Keras flattens
            structures.
    """

    calls: dict[str, Calls]
    bytes_per_sample: int
    answers: tuple[Shape, ...]


def survey(model: keras.Model, layers: Mapping[str, keras.Layer], samples: Samples) -> Survey:
    """Run a batch of samples, a single one for instance, and note the sizes of all feature maps."""
    calls = {path: Calls() for path in layers}
    sizes: list[int] = []

    def note(path: str, inputs: Any, outputs: Any) -> Any:
        sizes.extend(math.prod(tensor.shape[1:]) for tensor in keras.tree.flatten(outputs))
        if path in calls:
            calls[path].inputs.append(tuple(inputs.shape[1:]))
            calls[path].outputs.append(tuple(outputs.shape[1:]))
        return outputs

    with watching(dict(walk(model)), note):
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, samples)
        answers = keras.tree.flatten(model(tensors, training=False))
    return Survey(calls, 4 * sum(sizes), tuple(tuple(one.shape[1:]) for one in answers))
