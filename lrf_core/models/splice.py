"""Rebuild a model with some layers replaced by chains of layers, weights carried over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lrf_core.errors import ModelError, SpliceError
from lrf_core.models.load import is_probability
from lrf_core.models.precision import in_float32, tolerance_of_arithmetic, tolerance_of_weights
from lrf_core.models.rebuild import copy_of, rebuilt
from lrf_core.models.structure import Samples, chosen, sample_count
from lrf_core.models.trace import is_graph, walk

# Keras walks a graph by recursion, one call for each operation on the way, when it is made and when
# it is loaded; Python allows 1000 calls, some of which whoever loads the model has made already.
DEEPEST = 700

Chains = Mapping[str, Sequence[keras.Layer]]

# Samples that models are compared on in one call: a branch on values needs some.
_AT_ONCE = 4


def splice(model: keras.Model, chains: Chains) -> keras.Model:
    """A copy of `model` with layers replaced.

    Args:
        model: a built Functional or Sequential model; it is not changed.
        chains: path of a layer (see `trace.walk`) to the unbuilt layers that replace it.

    Returns:
        A new model, with the weights of every layer that stays; chains hold fresh weights. A
        layer used in several places is replaced by one chain, used in the same places. The last
        layer of a chain takes the name of the layer it replaces: outputs, and feature maps asked
        for by name, stay where they were. In a very deep model, each chain is a nested model.

    Raises:
        SpliceError: a path names no layer of the model.
        ModelError: a layer that stays cannot be copied.
    """
    layers = dict(walk(model))
    unknown = set(chains) - set(layers)
    if unknown:
        raise SpliceError(f"no layer named {', '.join(sorted(unknown))} in model '{model.name}'")
    for path, chain in chains.items():
        chain[-1].name = layers[path].name
    replacements = {id(layers[path]): chain for path, chain in chains.items()}
    if _depth(model, replacements) > DEEPEST:
        replacements = {key: [_nested(chain)] for key, chain in replacements.items()}
    return rebuilt(model, replacements)


def _depth(model: keras.Model, replacements: Mapping[int, Sequence[keras.Layer]]) -> int:
    """Operations one after the other, at most, in the model or a model in it, once spliced."""
    graphs = [part for part in model._flatten_layers() if is_graph(part)]
    return max(
        len(getattr(graph, "_nodes_by_depth", graph.layers))
        + sum(len(replacements.get(id(layer), [layer])) - 1 for layer in graph.layers)
        for graph in graphs
    )


def _nested(chain: Sequence[keras.Layer]) -> keras.Layer:
    return keras.Sequential(list(chain), name=chain[-1].name)


def check_same_answers(expected: keras.Model, model: keras.Model, samples: Samples) -> None:
    """Raise SpliceError unless both models answer alike on `samples`, to float32 accuracy.

    Models of a lower precision are compared in float32; what is allowed then is the rounding of
    weights that are stored in that precision.
    """
    allowed = tolerance_of_weights(model)
    difference = largest_difference(in_float32(expected), in_float32(model), samples)
    if not difference <= allowed:
        raise SpliceError(
            f"the rebuilt model '{model.name}' differs from what its factors say by "
            f"{difference:.1e} of the output scale (allowed {allowed:g}); it is not used"
        )


def check_can_be_rebuilt(
    given: keras.Model, model: keras.Model, paths: Sequence[str], samples: Samples
) -> None:
    """Raise ModelError unless a model still answers the same with layers replaced by chains.

    The chains are of full rank, and of the simplest kind: nothing, and the same layer again.

    Args:
        given: the model as it came, which may be subclassed.
        model: its graph, see `unroll.to_functional`.
        paths: of the layers that may be replaced later.
        samples: a few are enough.
    """
    layers = dict(walk(model))
    chains = {path: [keras.layers.Identity(), copy_of(layers[path])] for path in paths}
    spliced = splice(model, chains)
    for path, chain in chains.items():
        chain[-1].set_weights(layers[path].get_weights())
    if given is not model:  # code of one's own may not take the type that samples are stored in
        taken = [
            values.astype(tensor.dtype)
            for tensor, values in zip(model.inputs, keras.tree.flatten(samples), strict=True)
        ]
        samples = keras.tree.pack_sequence_as(samples, taken)
    difference = largest_difference(given, spliced, samples)
    if not difference <= tolerance_of_arithmetic(model):
        raise ModelError(
            f"model '{model.name}' answers otherwise when it is rebuilt from its layers "
            f"(by {difference:.1e} of the output scale): something in it is random at inference, "
            "keeps state that Keras does not save, or branches on values in its call(). Change "
            "that part, or rebuild the model with the functional API"
        )


def largest_difference(expected: keras.Model, model: keras.Model, samples: Samples) -> float:
    """The largest difference of any output, as a share of that output's scale; NaN if not finite.

    Probabilities are compared by their logarithms.
    """
    pairs = zip(_answers(expected, samples), _answers(model, samples), strict=True)
    differences = [_difference(want, got) for want, got in pairs if _is_number(want)]
    return float(np.max(differences))  # unlike max(), says NaN where there is one


def _answers(model: keras.Model, samples: Samples) -> list[Any]:
    # Not predict_on_batch: compiling a deep model for a few samples takes longer than running it.
    # Not all at once: a call holds every feature map until it ends.
    inputs = getattr(model, "inputs", None)  # subclassed models have none
    size = (inputs and inputs[0].shape[0]) or _AT_ONCE
    found = []
    for start in range(0, sample_count(samples), size):
        part = chosen(samples, slice(start, start + size))
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, part)
        outputs = keras.tree.flatten(model(tensors, training=False))
        found.append([keras.ops.convert_to_numpy(output) for output in outputs])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _difference(want: Any, got: Any) -> float:
    want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
    if is_probability(want):
        want, got = np.log(want + 1e-6), np.log(got + 1e-6)
    scale = max(float(np.abs(want).max()), 1e-30)
    return float(np.abs(want - got).max()) / scale


def _is_number(values: Any) -> bool:
    return np.asarray(values).dtype.kind not in "USO"
