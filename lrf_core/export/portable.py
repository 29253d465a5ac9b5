"""The same model in forms that more runtimes take: float32 arithmetic, channels-last layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from lrf_core.errors import ExportError
from lrf_core.models.precision import in_float32
from lrf_core.models.rebuild import rebuilt
from lrf_core.models.trace import walk
from lrf_core.models.unroll import as_graph

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def portable(model: keras.Model) -> keras.Model:
    """A graph that computes in float32: the model itself or a copy.

    Weights stored in less are converted, so nothing of them is lost.

    Raises:
        ModelError: the model cannot be followed or copied.
    """
    return in_float32(as_graph(model))


def with_channels_last_convolutions(model: keras.Model) -> keras.Model:
    """The model itself, or a copy whose channels-first convolutions run as channels-last ones.

    Each transposes its input and output, so that the copy answers the same. LiteRT knows
    channels-last convolutions only; its converter transposes around 2-D ones on its own, but fails
    at 1-D and 3-D ones (TensorFlow 2.21). Keras keeps kernels in one layout for both formats, so
    the weights stay as they are.

    Raises:
        ModelError: a layer cannot be copied.
    """
    if not any(_is_channels_first(layer) for _, layer in walk(model)):
        return model
    copy = rebuilt(model, {})
    for _, layer in walk(copy):
        if _is_channels_first(layer):
            rank = layer.rank
            layer.data_format = "channels_last"
            layer.call = _transposed(layer.call, rank)
    return copy


def check_no_grouped_conv3d(model: keras.Model, runtime: str) -> None:
    """Raise ExportError for a Conv3D with groups: LiteRT refuses it, tf2onnx drops the groups."""
    for path, layer in walk(model):
        if isinstance(layer, keras.layers.Conv3D) and layer.groups > 1:
            raise ExportError(
                f"{runtime} cannot run layer '{path}' of model '{model.name}', a Conv3D of "
                f"{layer.groups} groups; replace it by one without groups"
            )


def _is_channels_first(layer: keras.Layer) -> bool:
    return isinstance(layer, _CONVOLUTIONS) and layer.data_format == "channels_first"


def _transposed(call: Callable[[Any], Any], rank: int) -> Callable[[Any], Any]:
    to_last = (0, *range(2, rank + 2), 1)
    to_first = (0, rank + 1, *range(1, rank + 1))

    def transposed(inputs: Any) -> Any:
        outputs = call(keras.ops.transpose(inputs, to_last))
        return keras.ops.transpose(outputs, to_first)

    return transposed
