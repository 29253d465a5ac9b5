"""A model as LiteRT serves it, taking samples as the model itself takes them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.export import LitertModel, to_litert
from lrf_core.export.interface import by_output_name, samples_by_name
from lrf_core.models.structure import Samples, judged_output

Array = npt.NDArray[Any]


class ServedModel:
    """A model converted to float32 LiteRT, run on one thread.

    Raises:
        ExportError: LiteRT cannot express or refuses the model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._litert = LitertModel(to_litert(model))
        outputs = list(by_output_name(getattr(model, "output", model.outputs)))
        self._judged = outputs[judged_output(model) or 0]

    def predict(self, samples: Samples) -> Array:
        """Answers `(n, *output_shape)` of the output that labels belong to.

        Args:
            samples: `(n, *input_shape)` of any numeric type, or a list or dict of such arrays.

        Raises:
            ExportError: an operation fails.
        """
        return np.asarray(self._litert.run(samples_by_name(self._model, samples))[self._judged])
