"""The graph of a subclassed model, by calling it, and the layers it is made of, symbolically.

A subclassed model or layer is Python code that calls layers. Called with symbolic tensors instead
of arrays, the same code leaves a functional graph of those layers behind, with their weights. That
graph can be rebuilt, saved and loaded without the class. Code that does anything else with its
tensors than call layers and `keras.ops` (a `tf` function, a branch on a value) cannot be followed.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import keras

from lrf_core.errors import ModelError
from lrf_core.models.rebuild import new_input, set_trainable
from lrf_core.models.safety import LAYER_NAME
from lrf_core.models.trace import is_graph

_logger = logging.getLogger("lrf")

# Arguments of a call that are no tensors; Keras fills them in.
_CONTEXT = ("training", "mask")


def to_functional(model: keras.Model) -> keras.Model:
    """A Functional or Sequential model of the same layers; the model itself if it is one.

    Subclassed layers in it become nested models where that is possible, and stay otherwise. Layers
    and weights are shared with the model, not copied.

    Raises:
        ModelError: the object is no model, the model was never called, its code does something
            that cannot be followed, or TensorFlow refuses the name of a layer.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"{type(model).__name__} is not a Keras model")
    _check_names(model)
    if not is_graph(model):
        _check_can_be_followed(model)
        model = _graph_of_call(model)
    return _unrolled(model)


def _check_names(model: keras.Model) -> None:
    for layer in model._flatten_layers(include_self=False):
        is_run = not isinstance(layer, keras.layers.InputLayer)
        if is_run and not LAYER_NAME.fullmatch(layer.name):
            raise ModelError(
                f"model '{model.name}': layer {layer.name!r:.80} has a name that TensorFlow "
                "refuses; use letters, digits, '_', '.' and '-' only"
            )


def _check_can_be_followed(model: keras.Model) -> None:
    where = f"model '{model.name}' ({type(model).__name__})"
    if not model.built:
        raise ModelError(f"{where} is not built; call it once on a batch of samples")
    own = _own_weights(model)
    if own:
        raise ModelError(
            f"{where} has weights of its own ('{own[0].path}'), outside of any layer; put them "
            "into a layer, or rebuild it with the functional API"
        )
    arguments = _tensor_arguments(model)
    if len(arguments) != 1:
        raise ModelError(
            f"{where} is called with {', '.join(arguments) or 'nothing'}; give its call() one "
            "argument, a list or dict for several inputs"
        )


def _graph_of_call(model: keras.Model) -> keras.Model:
    """The graph that the call of a subclassed model leaves behind."""
    shapes = (model.get_build_config() or {}).get("input_shape")
    try:
        return _graph(model, _inputs_of(shapes))
    except Exception as error:
        raise ModelError(
            f"model '{model.name}' ({type(model).__name__}) is a subclassed model, and its call() "
            f"cannot be followed: {' '.join(str(error).split())[:200]}. Use only layers and "
            "keras.ops in it (no tf functions), or rebuild it with the functional API"
        ) from error


def _inputs_of(shapes: Any) -> Any:
    """Symbolic inputs in the structure of the shapes that a model was built with."""
    if isinstance(shapes, dict):
        return {name: _input_of(shapes[name], name) for name in shapes}
    if isinstance(shapes, (list, tuple)) and any(keras.tree.is_nested(part) for part in shapes):
        return [_input_of(shape, f"input_{index}") for index, shape in enumerate(shapes)]
    return _input_of(shapes, "input")


def _inputs_like(tensors: Any) -> Any:
    """Symbolic inputs like the tensors that a layer was called with."""
    flat = keras.tree.flatten(tensors)
    inputs = [_input_of(x.shape, f"input_{index}", x.dtype) for index, x in enumerate(flat)]
    return keras.tree.pack_sequence_as(tensors, inputs)


def _input_of(shape: Any, name: str, dtype: str | None = None) -> Any:
    return keras.Input(batch_shape=(None, *shape[1:]), dtype=dtype, name=name)


def _graph(layer: keras.Layer, inputs: Any) -> keras.Model:
    """A functional model of what a subclassed layer does. Raises whatever its code raises."""
    needed = inspect.signature(layer.call).parameters
    settings = {name: None for name in _CONTEXT if name in needed}
    graph = keras.Model(inputs, layer.call(inputs, **settings), name=layer.name)
    for index, operation in enumerate(graph.operations):
        if not isinstance(operation, keras.Layer):
            # Keras counts operations over the whole process; a digest must not.
            operation.name = f"operation_{index}"
    set_trainable(graph, layer.trainable)
    return graph


def _unrolled(model: keras.Model) -> keras.Model:
    """The model with subclassed layers in it, and in models in it, made nested models."""
    graphs = {id(layer): _unrolled_layer(layer) for layer in model.layers}
    if all(graphs[id(layer)] is layer for layer in model.layers):
        return model
    if isinstance(model, keras.Sequential):
        layers = [graphs[id(layer)] for layer in model.layers]
        new = keras.Sequential([new_input(model.inputs[0]), *layers], name=model.name)
    else:
        new = keras.models.clone_model(
            keras.Model(model.input, model.output, name=model.name),
            input_tensors=keras.tree.map_structure(new_input, model.input),
            clone_function=lambda layer: graphs.get(id(layer), layer),
        )
    set_trainable(new, model.trainable)
    return new


def _unrolled_layer(layer: keras.Layer) -> keras.Layer:
    if is_graph(layer):
        return _unrolled(layer)
    if not _is_container(layer):
        return layer
    try:
        return _unrolled(_graph(layer, _inputs_like(layer.input)))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        reason = " ".join(str(error).split())[:200]
        _logger.info("layer '%s' stays, its call cannot be followed: %s", layer.name, reason)
        return layer


def _is_container(layer: keras.Layer) -> bool:
    """Whether a layer is of a user's class, does nothing but call others, and always alike."""
    if type(layer).__module__.startswith("keras.") or not layer.weights or _own_weights(layer):
        return False
    shapes = {tuple(t.shape for t in node.input_tensors) for node in layer._inbound_nodes}
    return len(shapes) == 1 and len(_tensor_arguments(layer)) == 1


def _own_weights(layer: keras.Layer) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _tensor_arguments(layer: keras.Layer) -> list[str]:
    return [name for name in inspect.signature(layer.call).parameters if name not in _CONTEXT]
