"""ONNX files by tf2onnx, and onnxruntime to run them: the optional extra `onnx`.

Not by `model.export(format="onnx")`: Keras 3.15 hands tf2onnx a function in which constants of a
layer (Normalization) look like inputs, grouped and 3-D channels-first convolutions are hidden in
compiled functions, and exact GELU and long einsum equations are more than tf2onnx 1.17 can take.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.quiet import native_output_logged
from lrf_core.errors import ExportError
from lrf_core.export.interface import as_called, by_output_name, in_structure, input_names
from lrf_core.export.normalize import check_no_grouped_conv3d, normalize, reason
from lrf_core.export.runtime import ExportedModel
from lrf_core.export.saved_model import serving_signature

Array = npt.NDArray[Any]

OPSET = 18

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


def to_onnx(model: keras.Model) -> bytes:
    """Convert a built model to a float32 ONNX file with an open batch axis.

    Raises:
        ExportError: the extra `onnx` is not installed, or ONNX cannot express something that the
            model does.
        ModelError: a subclassed model that cannot be followed.
    """
    _needed("tf2onnx")
    onnx = _needed("onnx")
    graph = normalize(model)
    check_no_grouped_conv3d(graph, "onnxruntime")
    try:
        with native_output_logged(), _tf2onnx_silent():
            content = _converted(graph)
    except Exception as error:
        # TensorFlow and tf2onnx raise many types here; the reason is in the text of each.
        raise ExportError(f"model '{model.name}' cannot become ONNX: {reason(error)}") from error
    nodes = content.graph.node
    unknown = {node.op_type for node in nodes if not onnx.defs.has(node.op_type, node.domain)}
    if unknown:
        raise ExportError(
            f"ONNX cannot express model '{model.name}': it has no operation "
            f"{', '.join(sorted(unknown))}. Replace the layer that needs it"
        )
    return bytes(content.SerializeToString())


def _converted(graph: keras.Model) -> Any:
    """The onnx.ModelProto of a model."""
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    traced = _traced(graph)
    inputs = [tensor.name for tensor in traced.inputs[: len(graph.inputs)]]
    outputs = [tensor.name for tensor in traced.outputs]
    named = {tensor.name: name for name, tensor in traced.structured_outputs.items()}
    frozen = tf_loader.from_function(traced, inputs, outputs)
    with tf.Graph().as_default() as tf_graph:
        tf.import_graph_def(frozen, name="")
        onnx_graph = tfonnx.process_tf_graph(
            tf_graph,
            opset=OPSET,
            input_names=inputs,
            output_names=outputs,
            custom_op_handlers={"Erfc": (_erfc, []), "Einsum": (_einsum, [])},
            tensors_to_rename={**dict(zip(inputs, input_names(graph), strict=True)), **named},
            continue_on_error=True,  # what is not known is found, and named, afterwards
        )
        onnx_graph = optimizer.optimize_graph(onnx_graph, optimizers=_optimizers())
    return _with_batch_axis(onnx_graph.make_model(graph.name))


def _traced(graph: keras.Model) -> Any:
    """The model at inference as one TensorFlow graph from flat inputs to outputs by name."""
    import tensorflow as tf

    names = input_names(graph)

    def answers(*flat: Any) -> dict[str, Any]:
        inputs = in_structure(graph, dict(zip(names, flat, strict=True)))
        return by_output_name(graph(as_called(graph, inputs), training=False))

    specs = keras.tree.flatten(serving_signature(graph))
    with _functions_inlined():
        return tf.function(answers, input_signature=specs).get_concrete_function()


@contextmanager
def _functions_inlined() -> Iterator[None]:
    """Meanwhile a tf.function inside of another becomes part of it.

    Keras compiles some convolutions as functions of their own (XLA), which stay closed to tf2onnx.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def _tf2onnx_silent() -> Iterator[None]:
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """1 - erf, which ONNX has; exact GELU needs it."""
    one = ctx.make_const(f"{name}_one", np.ones((), np.float32)).output[0]
    kept = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    (source,), outputs = node.input, node.output
    ctx.remove_node(node.name)
    erf = ctx.make_node("Erf", [source], **kept)
    ctx.make_node("Sub", [one, erf.output[0]], name=name, outputs=outputs, **kept)


def _einsum(ctx: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's own Einsum, with lower-case letters.

    tf2onnx lower-cases an equation without asking whether two letters become one.
    """
    equation = node.get_attr_value("equation").decode()
    letters = dict.fromkeys(letter for letter in equation if letter.isalpha())
    renamed = {letter: chr(ord("a") + index) for index, letter in enumerate(letters)}
    del node.attr["N"]
    node.set_attr("equation", "".join(renamed.get(sign, sign) for sign in equation))


def _optimizers() -> dict[str, Any]:
    """All but the search for a faster einsum, which tries every order of the letters."""
    from tf2onnx import optimizer

    known = optimizer._get_optimizers()
    return {name: made for name, made in known.items() if name != "einsum_optimizer"}


def _with_batch_axis(content: Any) -> Any:
    for tensor in (*content.graph.input, *content.graph.output):
        axes = tensor.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = "batch"
    return content


def _needed(package: str) -> Any:
    try:
        with native_output_logged():
            return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the Python package {error.name or package}, which is not installed; "
            "pip install 'lrf[onnx]'"
        ) from None


class OnnxModel(ExportedModel):
    """An ONNX model, run by onnxruntime on one thread of the CPU.

    Args:
        content: as `to_onnx` returns it.

    Raises:
        ExportError: the extra `onnx` is not installed, or onnxruntime refuses the model.
    """

    def __init__(self, content: bytes) -> None:
        onnxruntime = _needed("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised
        try:
            with native_output_logged():
                self._session = onnxruntime.InferenceSession(
                    content, options, providers=["CPUExecutionProvider"]
                )
        except Exception as error:
            # onnxruntime has one class for each of its status codes, with no common base.
            raise ExportError(f"onnxruntime refuses the model: {reason(error)}") from error
        self._types = {tensor.name: tensor.type for tensor in self._session.get_inputs()}
        self.input_names = tuple(self._types)
        self.output_names = tuple(tensor.name for tensor in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._check_names(inputs)
        try:
            feeds = {
                name: np.ascontiguousarray(values, dtype=_DTYPES.get(self._types[name]))
                for name, values in inputs.items()
            }
            answers = self._session.run(self.output_names, feeds)
        except Exception as error:
            # As above.
            raise ExportError(f"onnxruntime cannot run the model: {reason(error)}") from error
        return {
            name: np.asarray(values)
            for name, values in zip(self.output_names, answers, strict=True)
        }
