"""Turn a Keras model into what a runtime serves: a LiteRT flatbuffer or a SavedModel."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.errors import ExportError
from lrf_core.quiet import native_output_logged

Array = npt.NDArray[Any]


def to_litert(model: keras.Model) -> bytes:
    """Convert a built model to a float32 LiteRT flatbuffer with an open batch axis.

    Raises:
        ExportError: LiteRT has no operation for something the model does.
    """
    import tensorflow as tf  # here, not above: stages that never export also run without it

    with tempfile.TemporaryDirectory(prefix="lrf-litert-") as folder:
        to_saved_model(model, folder)
        try:
            with native_output_logged():
                content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:
            # The converter raises many types; the reason is in the text of each.
            raise ExportError(
                f"LiteRT cannot express model '{model.name}': {_reason(error)}. Replace that "
                "layer by one that LiteRT has"
            ) from error
    return bytes(content)


def to_saved_model(model: keras.Model, folder: str | Path) -> Path:
    """Write a SavedModel with one signature `serve`; returns the folder.

    Raises:
        ExportError: the model cannot be traced, or the folder cannot be written.
    """
    try:
        with native_output_logged():
            model.export(str(folder), verbose=False)
    except Exception as error:
        # Keras and TensorFlow raise many types here; the reason is in the text of each.
        raise ExportError(
            f"model '{model.name}' cannot be written as a SavedModel to {folder}: {_reason(error)}"
        ) from error
    return Path(folder)


class LitertModel:
    """A LiteRT model with one input and one output, run on one thread.

    Args:
        content: the flatbuffer, as `to_litert` returns it.

    Raises:
        ExportError: LiteRT refuses the model.
    """

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with native_output_logged():
                self._interpreter = Interpreter(model_content=content, num_threads=1)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT refuses the model: {_reason(error)}") from None
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ExportError(
                f"the LiteRT model has {len(inputs)} inputs and {len(outputs)} outputs; only one "
                "of each is supported yet"
            )
        self._input, self._output = inputs[0], outputs[0]
        self._shape = tuple(int(size) for size in self._input["shape"])

    def predict(self, samples: Array) -> Array:
        """Answers `(n, *output_shape)` for samples `(n, *input_shape)` of any numeric type.

        Raises:
            ExportError: the samples do not fit, or an operation fails.
        """
        values = np.ascontiguousarray(samples, dtype=self._input["dtype"])
        try:
            if values.shape != self._shape:
                self._resize(values.shape)
            self._interpreter.set_tensor(self._input["index"], values)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT cannot run the model: {_reason(error)}") from None
        return np.asarray(self._interpreter.get_tensor(self._output["index"]))

    def _resize(self, shape: tuple[int, ...]) -> None:
        with native_output_logged():
            # Strict: only axes that the model leaves open may change.
            self._interpreter.resize_tensor_input(self._input["index"], shape, strict=True)
            self._interpreter.allocate_tensors()
        self._shape = shape


def _reason(error: Exception) -> str:
    """The line that says what is wrong, without the graph locations before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error:" in line), lines[0] if lines else "")
    return re.sub(r"^.*(error: |\)\): )", "", telling)[:300] or type(error).__name__
