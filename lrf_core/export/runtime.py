"""What every exported file can do once it is opened: answer samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from lrf_core.errors import ExportError

Array = npt.NDArray[Any]


class ExportedModel(ABC):
    """A model in the runtime that serves it.

    Attributes:
        input_names, output_names: as they are in the file.
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @abstractmethod
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answers `(n, *output_shape)` by output name.

        Args:
            inputs: samples `(n, *input_shape)` of any numeric type, by input name.

        Raises:
            ExportError: the samples do not fit, or an operation fails.
        """

    def predict(self, samples: Array) -> Array:
        """Answers `(n, *output_shape)` of a model with one input and one output.

        Args:
            samples: `(n, *input_shape)` of any numeric type.

        Raises:
            ExportError: the model has several inputs or outputs, the samples do not fit, or an
                operation fails.
        """
        if len(self.input_names) != 1 or len(self.output_names) != 1:
            raise ExportError(
                f"the exported model has the inputs {', '.join(self.input_names)} and the outputs "
                f"{', '.join(self.output_names)}; predict is for one of each, use run"
            )
        return self.run({self.input_names[0]: samples})[self.output_names[0]]

    def _check_names(self, inputs: Mapping[str, Array]) -> None:
        if set(inputs) != set(self.input_names):
            raise ExportError(
                f"the exported model takes the inputs {', '.join(self.input_names)}; got "
                f"{', '.join(inputs) or 'nothing'}"
            )


# They turn float values into int8 and back.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def operations_in_float(content: bytes) -> list[str]:
    """Names of the operations on float32 values, e.g. `["CONV_3D"]`; conversions left out."""
    return _distinct(
        name
        for name, tensors, _ in _operations(content)
        if name not in _CONVERSIONS and any(_is_float32(tensor) for tensor in tensors)
    )


def operations_with_float_weights(content: bytes, at_least: int) -> list[str]:
    """Names of the operations with a float32 constant of two or more axes.

    Args:
        at_least: values that the constant must have to count.
    """
    return _distinct(
        name
        for name, tensors, sizes in _operations(content)
        if name not in _CONVERSIONS
        and any(
            _is_float32(tensor) and tensor.ShapeLength() >= 2 and size >= 4 * at_least
            for tensor, size in zip(tensors, sizes, strict=True)
        )
    )


def _operations(content: bytes) -> Iterator[tuple[str, list[Any], list[int]]]:
    """Name, tensors in and out, and the bytes stored for each (0: not a constant)."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.OperatorsLength()):
            operation = graph.Operators(place)
            code = model.OperatorCodes(operation.OpcodeIndex())
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            used = [*operation.InputsAsNumpy(), *operation.OutputsAsNumpy()]
            tensors = [graph.Tensors(tensor) for tensor in used if tensor >= 0]
            sizes = [model.Buffers(tensor.Buffer()).DataLength() for tensor in tensors]
            yield names.get(builtin, "CUSTOM"), tensors, sizes


def _is_float32(tensor: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    return bool(tensor.Type() == schema.TensorType.FLOAT32)


def _distinct(names: Iterator[str]) -> list[str]:
    return sorted(set(names))
