"""What every exported file can do once it is opened: answer samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
