"""Convolutions and pooling that run, and answer alike, on every processor.

TensorFlow's kernels for CPUs come from oneDNN or are its own. oneDNN is on by default on some Intel
and AMD processors alone, can be turned off (`TF_ENABLE_ONEDNN_OPTS=0`), and is missing from other
builds. TensorFlow's own (2.21)

- refuse channels-first convolutions;
- shift the windows of 3-D operations with padding "same" if a stride is larger than the window by 2
  or more: they count the padding as negative.

So Keras on TensorFlow computes channels-first convolutions in channels_last here, as Keras 3.15
does itself with pooling and, on CPUs, with depthwise convolutions; and cuts off what no window of a
3-D operation sees. Layers, weights, configs and answers stay the same, also for other code in the
process, and models hold nothing of this. What TensorFlow traces (SavedModel, LiteRT, ONNX) has
channels-last operations only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src import backend  # what keras.layers and keras.ops call; there is no public way to it

Operation = Callable[..., Any]

_WINDOWED = ("conv", "max_pool", "average_pool")
_OPERATIONS = (*_WINDOWED, "conv_transpose", "depthwise_conv", "separable_conv")


def run_windows_everywhere() -> None:
    """Let Keras on TensorFlow compute as the module says; once is enough."""
    if keras.backend.backend() != "tensorflow":
        return
    for name in _OPERATIONS:
        operation = getattr(backend.nn, name)
        if not hasattr(operation, "__wrapped__"):
            seen = _of_what_is_seen(operation) if name in _WINDOWED else operation
            setattr(backend.nn, name, _in_channels_last(seen))


def _in_channels_last(operation: Operation) -> Operation:
    signature = inspect.signature(operation)

    @functools.wraps(operation)
    def run(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        is_first = backend.standardize_data_format(given.get("data_format")) == "channels_first"
        given["data_format"] = "channels_last"
        if not is_first:
            return operation(*call.args, **call.kwargs)
        given["inputs"] = keras.ops.moveaxis(given["inputs"], 1, -1)
        return keras.ops.moveaxis(operation(*call.args, **call.kwargs), -1, 1)

    return run


def _of_what_is_seen(operation: Operation) -> Operation:
    """Of a channels-last operation, one that is not given what no window sees."""
    signature = inspect.signature(operation)

    @functools.wraps(operation)
    def run(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        if len(given["inputs"].shape) == 5 and given["padding"] == "same":
            window = given["pool_size"] if "pool_size" in given else given["kernel"].shape[:-2]
            strides = given["strides"] if given["strides"] is not None else window
            given["inputs"] = _seen(given["inputs"], _sizes(window), _sizes(strides))
        return operation(*call.args, **call.kwargs)

    return run


def _seen(inputs: Any, window: Sequence[int], strides: Sequence[int]) -> Any:
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), start=1):
        if stride > size:
            last = (keras.ops.shape(inputs)[axis] - 1) // stride * stride
            inputs = inputs[(slice(None),) * axis + (slice(last + size),)]
    return inputs


def _sizes(given: int | Sequence[int]) -> Sequence[int]:
    return (given,) * 3 if isinstance(given, int) else given
