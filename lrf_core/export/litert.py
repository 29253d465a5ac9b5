"""LiteRT flatbuffers: float32, float16 weights, int8 weights, or int8 throughout."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.quiet import native_output_logged
from lrf_core.errors import DataError, ExportError, LrfError
from lrf_core.export.interface import as_called, samples_by_name
from lrf_core.export.normalize import (
    check_no_grouped_conv3d,
    normalize,
    reason,
    with_biases_last,
)
from lrf_core.export.runtime import (
    ExportedModel,
    operations_in_float,
    operations_with_float_weights,
)
from lrf_core.export.saved_model import serving_signature, to_saved_model
from lrf_core.files.scratch import scratch_folder, temporary_files_in
from lrf_core.models.structure import Samples

_logger = logging.getLogger("lrf")

Array = npt.NDArray[Any]

# FlatBuffers count bytes in 31 bits. Weights are float32 before they are made smaller.
_MOST_BYTES, _BYTES_OF_A_VALUE = 2**31 - 1, 4

# Weights up to this size are converted as constants, so that no variables are written, read and
# frozen: 5 times as fast for a few MiB, 2.5 times for 100 MiB. At 400 MiB it takes twice as long as
# with variables, and more memory.
_CONSTANT_BYTES = 2**27

# Samples are calibrated with as many at once as hold this many values; the ranges are the same.
_VALUES_AT_ONCE = 2**16


def to_litert(model: keras.Model) -> bytes:
    """Convert a built model to a float32 LiteRT flatbuffer with an open batch axis.

    Raises:
        ExportError: LiteRT has no operation for something the model does.
        ModelError: a subclassed model that cannot be followed.
    """
    return _converted(model, lambda converter: None)


def to_litert_float16(model: keras.Model) -> bytes:
    """Like `to_litert`, with weights stored in float16 and arithmetic in float32: half the size."""

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    return _converted(model, configure)


def to_litert_dynamic(model: keras.Model) -> bytes:
    """Like `to_litert`, with int8 weights, one scale for each output channel.

    Activations are float32 outside of the operations and are quantized in each as they come, so
    no calibration is needed. LiteRT keeps weights of fewer than 1,024 values, and those of
    operations that it has in float only, in float32; the latter are named in the log.
    """

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    content = _converted(model, configure)
    kept = operations_with_float_weights(content, at_least=1024)
    if kept:
        _logger.warning(
            "LiteRT has %s with float32 weights only; those of model '%s' are not quantized",
            ", ".join(kept),
            model.name,
        )
    return content


def to_litert_int8(model: keras.Model, samples: Samples) -> bytes:
    """Convert to int8 weights and int8 activations, with ranges seen on calibration samples.

    Inputs and outputs stay float32, quantized inside of the file: who calls it sends what they sent
    the Keras model, and need not know any scale. An operation without weights that LiteRT has in
    float only stays so, and is named in the log.

    Args:
        samples: a few hundred typical ones, `(n, *input_shape)`; for several inputs a list or
            dict of arrays, in the structure of the model's own input.

    Raises:
        DataError: the samples do not fit the model or are not finite.
        ExportError: LiteRT has no int8 operation for something with weights (Conv3D), or none at
            all; or the model answers the samples with values that are not finite.
        ModelError: a subclassed model that cannot be followed.
    """
    graph = normalize(model)
    named = samples_by_name(graph, samples)
    _check_calibration(graph, named)

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _batches(graph, named)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]

    content = _converted(graph, configure)
    kept = operations_with_float_weights(content, at_least=1)
    if kept:
        raise ExportError(
            f"LiteRT has no int8 {', '.join(kept)}, which model '{model.name}' needs; export it "
            "with int8 weights elsewhere only (litert-dynamic) or with float16 weights"
        )
    in_float = operations_in_float(content)
    if in_float:
        _logger.warning(
            "in model '%s', these stay in float32, as LiteRT does not run them in int8: %s",
            model.name,
            ", ".join(in_float),
        )
    return content


def _converted(model: keras.Model, configure: Callable[[Any], None]) -> bytes:
    """The flatbuffer by a TFLiteConverter that `configure` has set up."""

    graph = _as_litert_takes_it(model)
    with scratch_folder("litert") as folder, temporary_files_in(folder):
        try:
            with native_output_logged(), warnings.catch_warnings():
                # The calibrator's own interpreter says that it is deprecated.
                warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter", UserWarning)
                converter = (
                    _converter_of_constants(graph)
                    if _float_bytes(graph) <= _CONSTANT_BYTES
                    else _converter_of_variables(graph, folder)
                )
                configure(converter)
                content = converter.convert()
        except LrfError:
            raise
        except Exception as error:
            # Keras and the converter raise many types; the reason is in the text of each.
            raise _not_expressed(model, error) from error
    return bytes(content)


def _converter_of_constants(graph: keras.Model) -> Any:
    import tensorflow as tf

    values = [tf.constant(keras.ops.convert_to_numpy(variable)) for variable in graph.variables]

    def serve(inputs: Any) -> Any:
        with keras.StatelessScope(list(zip(graph.variables, values, strict=True))):
            return graph(as_called(graph, inputs), training=False)

    traced = tf.function(serve, [serving_signature(graph)], autograph=False)
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [traced.get_concrete_function()], tf.Module()
    )


def _converter_of_variables(graph: keras.Model, folder: Path) -> Any:
    import tensorflow as tf

    to_saved_model(graph, str(folder))
    return tf.lite.TFLiteConverter.from_saved_model(str(folder))


def _as_litert_takes_it(model: keras.Model) -> keras.Model:
    size = _float_bytes(model)
    if size > _MOST_BYTES:
        # The converter finds out after it has taken six times as much memory.
        raise ExportError(
            f"LiteRT files hold at most {_MOST_BYTES:,} bytes; the weights of model "
            f"'{model.name}' alone are {size:,}"
        )
    graph = with_biases_last(normalize(model))
    check_no_grouped_conv3d(graph, "LiteRT")
    return graph


def _float_bytes(model: keras.Model) -> int:
    return int(sum(math.prod(weight.shape) for weight in model.weights)) * _BYTES_OF_A_VALUE


def _not_expressed(model: keras.Model, error: Exception) -> ExportError:
    return ExportError(
        f"LiteRT cannot express model '{model.name}': {reason(error)}. Replace that "
        "layer by one that LiteRT has"
    )


def _check_calibration(graph: keras.Model, named: Mapping[str, Array]) -> None:
    """Raise where a value is not finite: the converter would end the process, or not quantize."""
    for name, values in named.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DataError(f"the calibration samples for '{name}' hold NaN or infinite values")
    reference = LitertModel(to_litert(graph), keep_activations=True)
    for batch in _batches(graph, named):
        reference.run(batch)
        unsound = reference.activations_not_finite()
        if unsound:
            raise ExportError(
                f"model '{graph.name}' answers the calibration samples with NaN or infinite values "
                f"inside ({unsound[0]}), which int8 cannot express; give samples as it was trained "
                "on, or export to float16"
            )


def _batches(graph: keras.Model, named: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
    dtypes = {name: t.dtype for name, t in zip(named, graph.inputs, strict=True)}
    count = len(next(iter(named.values())))
    at_once = max(1, _VALUES_AT_ONCE * count // sum(values.size for values in named.values()))
    for start in range(0, count, at_once):
        stop = start + at_once
        yield {name: x[start:stop].astype(dtypes[name]) for name, x in named.items()}


class LitertModel(ExportedModel):
    """A LiteRT model, run on one thread.

    Args:
        content: the flatbuffer, as `to_litert` returns it.
        keep_activations: hold every inner result, which takes more memory, so that
            `activations_not_finite` can look at them.

    Raises:
        ExportError: LiteRT refuses the model.
    """

    def __init__(self, content: bytes, *, keep_activations: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        # Delegates keep inner results to themselves.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        resolver = plain if keep_activations else OpResolverType.AUTO
        try:
            with native_output_logged():
                self._interpreter = Interpreter(
                    model_content=content,
                    num_threads=1,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=keep_activations,
                )
                self._inputs, self._outputs = self._by_name()
                self._shapes = {name: tuple(x["shape"]) for name, x in self._inputs.items()}
                if any((x["shape_signature"][1:] < 0).any() for x in self._inputs.values()):
                    self._shapes = {}  # sizes left open stand at 1, too few for some operations
                else:
                    self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT refuses the model: {reason(error)}") from None
        self.input_names, self.output_names = tuple(self._inputs), tuple(self._outputs)

    @property
    def tensor_bytes(self) -> int:
        """Memory of all weights, inputs and results for one sample; LiteRT needs less."""
        return sum(
            math.prod(map(int, tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
            for tensor in self._interpreter.get_tensor_details()
        )

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._feed(inputs)
        self._invoke()
        return {
            name: np.asarray(self._interpreter.get_tensor(tensor["index"]))
            for name, tensor in self._outputs.items()
        }

    def ready(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """What runs the model on these inputs again and again, without copying in or out.

        Raises:
            ExportError: the inputs do not fit; also from the function returned, where an operation
                fails.
        """
        self._feed(inputs)
        return self._invoke

    def _feed(self, inputs: Mapping[str, Array]) -> None:
        self._check_names(inputs)
        values = {
            name: np.ascontiguousarray(inputs[name], dtype=tensor["dtype"])
            for name, tensor in self._inputs.items()
        }
        shapes = {name: array.shape for name, array in values.items()}
        try:
            if shapes != self._shapes:
                self._resize(shapes)
            for name, array in values.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], array)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT cannot run the model: {reason(error)}") from None

    def _invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"LiteRT cannot run the model: {reason(error)}") from None

    def activations_not_finite(self) -> list[str]:
        """Names of the inner results of the last run that hold NaN or infinite values.

        LiteRT cuts what is infinite to the largest float.
        """
        largest = np.finfo(np.float32).max
        return [
            tensor["name"]
            for tensor in self._interpreter.get_tensor_details()
            if tensor["name"]  # without one it is scratch memory of an operation
            and tensor["dtype"] == np.float32
            and not (np.abs(self._interpreter.get_tensor(tensor["index"])) < largest).all()
        ]

    def _by_name(self) -> tuple[dict[str, Any], dict[str, Any]]:
        signatures = self._interpreter.get_signature_list()
        if not signatures:  # not from a SavedModel: the tensors' own names are all there is
            inputs, outputs = (
                {tensor["name"]: tensor for tensor in tensors}
                for tensors in (
                    self._interpreter.get_input_details(),
                    self._interpreter.get_output_details(),
                )
            )
            return inputs, outputs
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        return runner.get_input_details(), runner.get_output_details()

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        with native_output_logged():
            for name, shape in shapes.items():
                # Strict: only axes that the model leaves open may change.
                self._interpreter.resize_tensor_input(
                    self._inputs[name]["index"], shape, strict=True
                )
            self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)
