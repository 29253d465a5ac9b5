"""The same model in forms that more runtimes take: float32 arithmetic, biases on the last axis."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras

from lrf_core.errors import ExportError
from lrf_core.models.precision import in_float32
from lrf_core.models.rebuild import rebuilt
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.SeparableConv1D,
)


def normalize(model: keras.Model) -> keras.Model:
    """A graph that computes in float32: the model itself or a copy.

    Weights stored in less are converted, so nothing of them is lost.

    Raises:
        ModelError: the model cannot be followed or copied.
    """
    return in_float32(to_functional(model))


def with_biases_last(model: keras.Model) -> keras.Model:
    """The model itself, or a copy whose channels-first 1-D and 3-D convolutions transpose last.

    Keras computes convolutions in channels_last (see `models.windows`), but adds biases once
    it has transposed back, and LiteRT's converter (TensorFlow 2.21) takes any such bias for one of
    a 2-D map. In the copy, whole layers run in channels_last, and the answers are the same.

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
    """Whether a layer adds a bias along axis 1.

    Keras 3.15 on TensorFlow adds it along the last axis if that is as long as there are channels.
    """
    if not (isinstance(layer, _CONVOLUTIONS) and layer.data_format == "channels_first"):
        return False
    widths = {node.output_tensors[0].shape[-1] for node in layer._inbound_nodes}
    return bool(layer.use_bias) and layer.bias.shape[0] not in widths


def _transposed(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def transposed(inputs: Any) -> Any:
        return keras.ops.moveaxis(call(keras.ops.moveaxis(inputs, 1, -1)), -1, 1)

    return transposed


def reason(error: Exception) -> str:
    """The line of an error that says what is wrong, without the graph locations before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error:" in line), lines[0] if lines else "")
    words = re.sub(r"^.*(error: |\)\): )", "", telling)
    words = re.sub(r"^'tf\.(\w+)' op is neither .*$", r"it has no operation \1", words)
    return words[:300] or type(error).__name__
