"""The same model in forms that more runtimes take: float32 arithmetic, channels-last volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from lrf_core.errors import ExportError
from lrf_core.models.precision import in_float32
from lrf_core.models.rebuild import rebuilt
from lrf_core.models.trace import walk
from lrf_core.models.unroll import as_graph

_VOLUMES = (keras.layers.Conv3D, keras.layers.Conv3DTranspose)


def portable(model: keras.Model) -> keras.Model:
    """A graph that computes in float32: the model itself or a copy.

    Weights stored in less are converted, so nothing of them is lost.

    Raises:
        ModelError: the model cannot be followed or copied.
    """
    return in_float32(as_graph(model))


def with_channels_last_volumes(model: keras.Model) -> keras.Model:
    """The model itself, or a copy whose channels-first 3-D convolutions run as channels-last ones.

    Each transposes its input and output, so that the copy answers the same. Keras computes
    convolutions in channels_last already (see `models.channels_first`), but adds the bias after the
    transposition, and LiteRT's converter (TensorFlow 2.21) takes every such bias for one of a 2-D
    map.

    Raises:
        ModelError: a layer cannot be copied.
    """
    if not any(_has_bias_first(layer) for _, layer in walk(model)):
        return model
    copy = rebuilt(model, {})
    for _, layer in walk(copy):
        if _has_bias_first(layer):
            layer.data_format = "channels_last"
            layer.call = _transposed(layer.call)
    return copy


def check_no_grouped_conv3d(model: keras.Model, runtime: str) -> None:
    """Raise ExportError for a Conv3D with groups: LiteRT refuses it, tf2onnx drops the groups."""
    for path, layer in walk(model):
        if isinstance(layer, keras.layers.Conv3D) and layer.groups > 1:
            raise ExportError(
                f"{runtime} cannot run layer '{path}' of model '{model.name}', a Conv3D of "
                f"{layer.groups} groups; replace it by one without groups"
            )


def _has_bias_first(layer: keras.Layer) -> bool:
    return isinstance(layer, _VOLUMES) and layer.data_format == "channels_first" and layer.use_bias


def _transposed(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def transposed(inputs: Any) -> Any:
        return keras.ops.moveaxis(call(keras.ops.moveaxis(inputs, 1, -1)), -1, 1)

    return transposed
