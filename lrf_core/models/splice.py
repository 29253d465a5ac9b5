"""Rebuild a model with some layers replaced by chains of layers, weights carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lrf_core.errors import SpliceError
from lrf_core.models.load import is_probability
from lrf_core.models.trace import is_nested_model, walk

Chains = Mapping[str, Sequence[keras.Layer]]


def splice(model: keras.Model, chains: Chains) -> keras.Model:
    """A copy of `model` with layers replaced.

    Args:
        model: a built Functional or Sequential model; it is not changed.
        chains: path of a layer (see `trace.walk`) to the unbuilt layers that replace it.

    Returns:
        A new model, with the weights of every layer that stays; chains hold fresh weights. A
        layer used in several places is replaced by one chain, used in the same places.

    Raises:
        SpliceError: a path names no layer of the model.
    """
    unknown = set(chains) - {path for path, _ in walk(model)}
    if unknown:
        raise SpliceError(f"no layer named {', '.join(sorted(unknown))} in model '{model.name}'")
    copies: dict[int, tuple[keras.Layer, keras.Layer]] = {}
    spliced = _spliced(model, chains, "", copies)
    for original, copy in copies.values():
        if original.weights:
            copy.set_weights(original.get_weights())
    return spliced


def _spliced(
    model: keras.Model,
    chains: Chains,
    prefix: str,
    copies: dict[int, tuple[keras.Layer, keras.Layer]],
) -> keras.Model:
    chain_of_copy: dict[int, Sequence[keras.Layer]] = {}

    def copied(layer: keras.Layer) -> keras.Layer:
        path = f"{prefix}{layer.name}"
        if is_nested_model(layer):
            return _spliced(layer, chains, f"{path}/", copies)
        copy = type(layer).from_config(layer.get_config())
        if path in chains:
            chain_of_copy[id(copy)] = chains[path]
        elif not isinstance(layer, keras.layers.InputLayer):
            copies[id(layer)] = (layer, copy)
        return copy

    if isinstance(model, keras.Sequential):
        source = model.inputs[0]
        layers: list[Any] = [
            keras.Input(batch_shape=source.shape, dtype=source.dtype, name=source.name)
        ]
        for layer in model.layers:
            copy = copied(layer)
            layers.extend(chain_of_copy.get(id(copy), [copy]))
        return keras.Sequential(layers, name=model.name)

    def called(copy: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        chain = chain_of_copy.get(id(copy))
        if chain is None:
            return copy(*args, **kwargs)
        (outputs,) = args
        for layer in chain:
            outputs = layer(outputs)
        return outputs

    return keras.models.clone_model(model, clone_function=copied, call_function=called)


def check_same_answers(expected: keras.Model, model: keras.Model, samples: np.ndarray) -> None:
    """Raise SpliceError unless both models answer alike on `samples`, to float32 accuracy."""
    want = np.asarray(expected.predict_on_batch(samples), np.float64)
    got = np.asarray(model.predict_on_batch(samples), np.float64)
    if is_probability(want):
        want, got = np.log(want + 1e-6), np.log(got + 1e-6)
    scale = max(float(np.abs(want).max()), 1e-6)
    difference = float(np.abs(want - got).max()) / scale
    if not difference <= 1e-3:
        raise SpliceError(
            f"the rebuilt model '{model.name}' differs from what its factors say by "
            f"{difference:.1e} of the output scale (allowed 1e-3); it is not used"
        )
