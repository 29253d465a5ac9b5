"""Conversion to LiteRT by the size of the model, and the size that no file can hold."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_cnn

from lrf_core.errors import ExportError
from lrf_core.export import LitertModel, litert
from lrf_core.export.runtime import _operations


def test_a_model_that_no_litert_file_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)], name="large")
    monkeypatch.setattr(litert, "_MOST_BYTES", 4 * (16 * 16 + 16) - 1)
    with pytest.raises(ExportError, match="'large' alone are 1,088"):
        litert.to_litert(model)
    monkeypatch.setattr(litert, "_MOST_BYTES", 4 * (16 * 16 + 16))
    assert litert.to_litert(model)


def test_large_models_are_converted_to_the_same_operations_and_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_cnn(seed=3)
    of_constants = litert.to_litert(model)
    monkeypatch.setattr(litert, "_CONSTANT_BYTES", 0)
    of_variables = litert.to_litert(model)
    names = [[name for name, *_ in _operations(each)] for each in (of_constants, of_variables)]
    assert names[0] == names[1]
    samples, _ = tiny_arrays(3)
    outputs = [LitertModel(each).predict(samples) for each in (of_constants, of_variables)]
    np.testing.assert_allclose(*outputs, rtol=1e-6, atol=1e-6)
