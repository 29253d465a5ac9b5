"""What the time of a layer, and of the chains that replace it, depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from lrf_core.artifacts import Call, LayerRecord, Record
from lrf_core.methods import Geometry


class TimedGeometry(Record):
    """Layers of equal geometry take equal time, whatever their weights, name or model.

    Attributes:
        kind: the Keras class, e.g. "Conv2D".
        kernel_shape: `(*spatial, inputs, outputs)`; no spatial sizes for a dense layer.
        calls: sizes of the feature maps, one entry for every place where the layer is used. The
            latency is that of all calls together.
        fixed_sizes: whether the model takes samples of one size only; decides which forms apply.
        strides, dilation_rate, padding, data_format: of a convolution, else empty.
        activation: name of a function, or class and settings of a layer (JSON).
    """

    kind: str
    kernel_shape: tuple[int, ...]
    calls: tuple[Call, ...]
    fixed_sizes: bool
    bias: bool
    activation: str
    strides: tuple[int, ...] = ()
    dilation_rate: tuple[int, ...] = ()
    padding: str = ""
    data_format: str = ""

    def geometry(self) -> Geometry:
        """What costs and forms depend on."""
        return Geometry(self.kernel_shape, self.calls, self.bias, self.fixed_sizes, self.strides)

    def input_shapes(self) -> list[tuple[int, ...]]:
        """Of one sample, for each call."""
        channels = (self.kernel_shape[-2],)
        if self.data_format == "channels_first":
            return [(*channels, *call.inputs) for call in self.calls]
        return [(*call.inputs, *channels) for call in self.calls]

    def described(self) -> str:
        """For people: `Conv2D 3x3x64x64 at 32x32`."""
        words = [self.kind, "x".join(map(str, self.kernel_shape))]
        places = ["x".join(map(str, call.inputs)) for call in self.calls if call.inputs]
        return " ".join([*words, *(["at", ", ".join(places)] if places else [])])


def timed_geometries(
    records: Sequence[LayerRecord], layers: Mapping[str, keras.Layer]
) -> dict[str, TimedGeometry]:
    """By layer name.

    Args:
        records: of convolutions and dense layers.
        layers: the layers themselves, by the same names.
    """
    return {record.name: _timed(record, layers[record.name]) for record in records}


def _timed(record: LayerRecord, layer: keras.Layer) -> TimedGeometry:
    convolution = {}
    if hasattr(layer, "strides"):
        convolution = {
            "strides": tuple(layer.strides),
            "dilation_rate": tuple(layer.dilation_rate),
            "padding": layer.padding,
            "data_format": layer.data_format,
        }
    return TimedGeometry(
        kind=record.kind,
        kernel_shape=record.kernel_shape,
        calls=record.calls,
        fixed_sizes=record.fixed_sizes,
        bias=record.bias,
        activation=_activation(layer.activation),
        **convolution,
    )


def _activation(activation: Any) -> str:
    if isinstance(activation, keras.Layer):
        kept = {k: v for k, v in activation.get_config().items() if k not in ("name", "dtype")}
        settings = json.dumps(kept, sort_keys=True, default=str)
        return f"{type(activation).__name__} {settings}"
    serialized = keras.activations.serialize(activation)
    if isinstance(serialized, str):
        return serialized
    return json.dumps(serialized, sort_keys=True, default=str)
