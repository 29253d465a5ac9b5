"""Channels-first convolutions on every processor.

TensorFlow runs channels-first convolutions on CPUs only with oneDNN, which is on by default on some
Intel and AMD processors alone, can be turned off (`TF_ENABLE_ONEDNN_OPTS=0`), and is missing from
other builds. Keras 3.15 transposes around pooling, and on CPUs around depthwise convolutions, for
that reason; here it does so around every convolution. Layers, weights, configs and answers stay the
same, also for other code in the process; so do models, which hold nothing of this. What TensorFlow
traces (SavedModel, LiteRT, ONNX) has channels-last convolutions only, which LiteRT needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras.src import backend  # what keras.layers and keras.ops call; there is no public way to it

_CONVOLUTIONS = ("conv", "conv_transpose", "depthwise_conv", "separable_conv")


def convolve_in_channels_last() -> None:
    """Let Keras on TensorFlow compute channels-first convolutions as channels-last ones."""
    if keras.backend.backend() != "tensorflow":
        return
    for name in _CONVOLUTIONS:
        convolution = getattr(backend.nn, name)
        if not hasattr(convolution, "__wrapped__"):
            setattr(backend.nn, name, _in_channels_last(convolution))


def _in_channels_last(convolution: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(convolution)

    @functools.wraps(convolution)
    def convolved(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        if backend.standardize_data_format(call.arguments.get("data_format")) == "channels_last":
            return convolution(*args, **kwargs)
        call.arguments["data_format"] = "channels_last"
        call.arguments["inputs"] = keras.ops.moveaxis(call.arguments["inputs"], 1, -1)
        return keras.ops.moveaxis(convolution(*call.args, **call.kwargs), -1, 1)

    return convolved
