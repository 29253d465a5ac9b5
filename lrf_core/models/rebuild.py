"""Copy a graph of layers, with layers replaced on the way and the state of the others kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import keras
import numpy as np

from lrf_core.errors import ModelError
from lrf_core.files.scratch import scratch_folder
from lrf_core.models.trace import is_graph

Chain = Sequence[keras.Layer]


def copy_of(layer: keras.Layer) -> keras.Layer:
    """A new layer of the same class and settings, without weights yet.

    Raises:
        ModelError: the layer cannot be made from its own config.
    """
    return copy_with(layer, {})


def copy_with(layer: keras.Layer, settings: Mapping[str, Any]) -> keras.Layer:
    """A new layer of the same class, with some settings changed. Raises ModelError."""
    try:
        with keras.saving.custom_object_scope(_own_objects(layer)):
            return type(layer).from_config({**layer.get_config(), **settings})
    except Exception as error:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}) cannot be made again from its config: "
            f"{' '.join(str(error).split())[:200]}. Give its class a get_config and a from_config"
        ) from error


def rebuilt(
    model: keras.Model,
    chains: Mapping[int, Chain],
    copy: Callable[[keras.Layer], keras.Layer] = copy_of,
) -> keras.Model:
    """A model of the same graph with new layers.

    Every layer, and every nested model, is copied once, and the copy is used in all the places
    where the original is. State is carried over: weights, adapted statistics, vocabularies.

    Args:
        model: a built Functional or Sequential model; it is not changed.
        chains: id of a layer to the unbuilt layers that replace it; these keep their own weights.
        copy: how the other layers are copied.

    Raises:
        ModelError: a layer cannot be copied.
    """
    replacements = _Replacements(chains, copy)
    new = replacements.graph(model)
    for original, copied in replacements.copied():
        carry_state(original, copied)
    return new


class _Replacements:
    """What stands for each layer of a model, made on first use."""

    def __init__(
        self, chains: Mapping[int, Chain], copy: Callable[[keras.Layer], keras.Layer]
    ) -> None:
        self._chains = chains
        self._copy = copy
        self._made: dict[int, tuple[keras.Layer, Any]] = {}

    def copied(self) -> list[tuple[keras.Layer, keras.Layer]]:
        """Layers with their copies; nested models and layers that chains replace left out."""
        return [
            (original, made)
            for original, made in self._made.values()
            if isinstance(made, keras.Layer) and not is_graph(original)
        ]

    def of(self, layer: Any) -> Any:
        """A layer, a chain, or an operation without state."""
        if id(layer) not in self._made:
            self._made[id(layer)] = layer, self._replacement(layer)
        return self._made[id(layer)][1]

    def _replacement(self, layer: Any) -> Any:
        if id(layer) in self._chains:
            return tuple(self._chains[id(layer)])
        if not isinstance(layer, keras.Layer):
            return type(layer).from_config(layer.get_config())
        return self.graph(layer) if is_graph(layer) else self._copy(layer)

    def graph(self, model: keras.Model) -> keras.Model:
        if isinstance(model, keras.Sequential):
            new = self._sequential(model)
        else:
            new = keras.models.clone_model(
                # A bare view: neither compiled nor of a class of its own.
                keras.Model(model.input, model.output, name=model.name),
                input_tensors=keras.tree.map_structure(new_input, model.input),
                clone_function=self.of,
                call_function=_call,
            )
        set_trainable(new, model.trainable)
        return new

    def _sequential(self, model: keras.Sequential) -> keras.Sequential:
        layers: list[Any] = [new_input(model.inputs[0])]
        for layer in model.layers:
            replacement = self.of(layer)
            layers.extend(replacement if isinstance(replacement, tuple) else [replacement])
        return keras.Sequential(layers, name=model.name)


def _call(replacement: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(replacement, tuple):
        return replacement(*args, **kwargs)
    outputs = args[0] if args else kwargs["inputs"]
    for link in replacement:
        outputs = link(outputs)
    return outputs


def new_input(tensor: Any) -> Any:
    """A symbolic input like the one given, of the same name."""
    source = tensor._keras_history.operation
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=source.name,
        optional=getattr(source, "optional", False),
    )


def set_trainable(model: keras.Model, trainable: bool) -> None:
    """Set the flag of the model alone; Keras' own setter also changes every layer in it."""
    if model.trainable == trainable:
        return
    flags = [(layer, layer.trainable) for layer in model._flatten_layers(include_self=False)]
    model.trainable = trainable
    for layer, flag in flags:  # outer layers first
        layer.trainable = flag


def carry_state(original: keras.Layer, copied: keras.Layer) -> None:
    """Give a layer or model the state of another that was made from the same config."""
    pairs = zip(original._flatten_layers(), copied._flatten_layers(), strict=True)
    for before, after in pairs:
        variables: dict[str, Any] = {}
        before.save_own_variables(variables)
        # Copies: on JAX, training frees the arrays that it begins with.
        after.load_own_variables({name: _copy(value) for name, value in variables.items()})
        if hasattr(before, "save_assets"):
            with scratch_folder("assets") as folder:
                before.save_assets(str(folder))
                after.load_assets(str(folder))


def _copy(value: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(value))


def _own_objects(layer: keras.Layer) -> dict[str, Any]:
    """Classes and functions in a layer that do not come from Keras, by the name configs use."""
    parts = layer._flatten_layers()
    values = [value for part in parts for value in vars(part).values()]
    found = [type(part) for part in parts] + [v for v in values if isinstance(v, FunctionType)]
    return {
        keras.saving.get_registered_name(value): value
        for value in found
        if not value.__module__.startswith("keras.")
    }
