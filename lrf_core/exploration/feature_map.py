"""The feature map that similarities are taken on: after bias, batch norm and activation.

What a layer's errors do to the model shows behind the batch norm and the activation that follow
it: a channel that batch norm scales up weighs more, and what ReLU cuts off does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.ops import nn  # the operations that functional graphs hold

from lrf_core.methods.base import Matrix
from lrf_core.models.consumers import Operation, consumers
from lrf_core.models.rebuild import copy_with

# Products of rows and kernel, `(rows, channels)`, to the feature map at those positions.
FeatureMap = Callable[[Matrix], Matrix]

_layers = keras.layers
_ELEMENTWISE_LAYERS = (_layers.ReLU, _layers.LeakyReLU, _layers.ELU)
_ELEMENTWISE_OPERATIONS = (
    nn.Relu,
    nn.Relu6,
    nn.LeakyRelu,
    nn.Elu,
    nn.Selu,
    nn.Gelu,
    nn.Silu,
    nn.Sigmoid,
    nn.HardSigmoid,
    nn.HardSilu,
    nn.Softplus,
)
_ACROSS_CHANNELS = (
    keras.activations.softmax,
    keras.activations.log_softmax,
    keras.activations.sparsemax,
    keras.activations.glu,
)


def feature_maps(model: keras.Model, layers: Mapping[str, keras.Layer]) -> dict[str, FeatureMap]:
    """What stands behind each of these layers in the model.

    That is the layer's own bias and activation, then a batch norm (with its moving statistics) that
    alone takes the layer's output, then an activation that alone takes that. A layer that is used
    in several places is followed only where all of them agree.

    Args:
        model: a Functional or Sequential model.
        layers: path to convolution or dense layer.
    """
    behind = consumers(model)
    return {
        path: feature_map_of(layer, _agreed(layer, behind.get(id(layer), [])))
        for path, layer in layers.items()
    }


def feature_map_of(layer: keras.Layer, behind: Sequence[Operation] = ()) -> FeatureMap:
    """The layer's own bias and activation, then what stands behind it."""
    steps = [_bias(layer)] if layer.use_bias else []
    if layer.activation is not keras.activations.linear:
        steps.append(_activation(layer.activation))
    steps += [_step(operation) for operation in behind]

    def feature_map(products: Matrix) -> Matrix:
        for step in steps:
            products = step(products)
        return products

    return feature_map


def _agreed(layer: keras.Layer, uses: Sequence[tuple[Operation, ...]]) -> tuple[Operation, ...]:
    found = {_judged(layer, use) for use in uses}
    return found.pop() if len(found) == 1 else ()


def _judged(layer: keras.Layer, behind: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """Of the operations behind a layer, a batch norm over its channels and an activation."""
    norm = behind[:1] if behind and _is_norm_of_channels(behind[0], layer) else ()
    rest = behind[len(norm) :]
    return (*norm, *(rest[:1] if rest and _is_activation(rest[0], layer) else ()))


def _is_norm_of_channels(operation: Operation, layer: keras.Layer) -> bool:
    if not isinstance(operation, _layers.BatchNormalization):
        return False
    rank = operation.input_spec.ndim
    return bool(operation.axis % rank == (rank - 1 if _channels_last(layer) else 1))


def _is_activation(operation: Operation, layer: keras.Layer) -> bool:
    if isinstance(operation, (*_ELEMENTWISE_LAYERS, *_ELEMENTWISE_OPERATIONS)):
        return True
    if isinstance(operation, _layers.PReLU):
        # One slope for each channel, or for all.
        return int(np.prod(operation.alpha.shape[:-1])) == 1 and _channels_last(layer)
    if isinstance(operation, _layers.Softmax):
        return operation.axis == -1 and _channels_last(layer)
    if isinstance(operation, _layers.Activation):
        across = operation.activation in _ACROSS_CHANNELS
        return not isinstance(operation.activation, keras.Layer) and (
            not across or _channels_last(layer)
        )
    return False


def _channels_last(layer: keras.Layer) -> bool:
    return getattr(layer, "data_format", "channels_last") == "channels_last"


def _step(operation: Operation) -> FeatureMap:
    if isinstance(operation, _layers.BatchNormalization):
        return _norm(operation)
    if isinstance(operation, _layers.PReLU):
        slope = _numbers(operation.alpha).reshape(-1)
        return lambda values: np.maximum(values, 0) + slope * np.minimum(values, 0)
    if isinstance(operation, _layers.Activation):
        return _activation(operation.activation)
    return _activation(operation)


def _bias(layer: keras.Layer) -> FeatureMap:
    bias = _numbers(layer.bias)
    return lambda values: values + bias


def _norm(layer: keras.Layer) -> FeatureMap:
    scale = 1 / np.sqrt(_numbers(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * _numbers(layer.gamma)
    shift = -_numbers(layer.moving_mean) * scale
    if layer.center:
        shift = shift + _numbers(layer.beta)
    return lambda values: values * scale + shift


def _activation(function: Any) -> FeatureMap:
    if function is keras.activations.relu or type(function) is nn.Relu:
        return lambda values: np.maximum(values, 0)
    if isinstance(function, keras.Layer):
        # Without the low precision that the model may run in.
        function = copy_with(function, {"dtype": "float32"})
    return lambda values: np.asarray(keras.ops.convert_to_numpy(function(values)), np.float64)


def _numbers(variable: Any) -> Matrix:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
