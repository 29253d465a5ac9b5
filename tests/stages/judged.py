"""A small model, and verdicts on it: for tests of what is published by which verdict."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from sound_verdict import sound_verdict
from tiny import tiny_cnn

from lrf_core.artifacts import Verdict
from lrf_core.models.load import model_digest


def stepped_cnn() -> keras.Model:
    """Trained for one step, so that it carries an optimizer with slots."""
    model = tiny_cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 16, 16, 3), "float32"), np.zeros(4), verbose=0)
    return model


def verdict_of(model: keras.Model, **numbers: Any) -> Verdict:
    """A verdict that passed, unless the numbers say otherwise; see `sound_verdict`."""
    return sound_verdict(model_digest(model), **numbers)
