"""What LiteRT has no room for is refused before any memory is taken for it."""

from __future__ import annotations

import keras
import pytest

from lrf_core.errors import ExportError
from lrf_core.export import litert


def test_a_model_that_no_litert_file_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)], name="large")
    monkeypatch.setattr(litert, "_MOST_BYTES", 4 * (16 * 16 + 16) - 1)
    with pytest.raises(ExportError, match="'large' alone are 1,088"):
        litert.to_litert(model)
    monkeypatch.setattr(litert, "_MOST_BYTES", 4 * (16 * 16 + 16))
    assert litert.to_litert(model)
