"""A small model, and verdicts on it: for tests of what is published by which verdict."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from tiny import tiny_cnn

from lrf_core.artifacts import Check, Cost, Lineage, ModelMeasures, Verdict
from lrf_core.models.load import model_digest

PASSED = Check(name="accuracy drop", limit="at most 1 point", measured="0.2", passed=True)
FAILED = Check(name="params", limit="at least 50% fewer", measured="12%", passed=False)
UNMEASURED = Check(name="latency", limit="at most 1x", measured=None, passed=True)


def stepped_cnn() -> keras.Model:
    """Trained for one step, so that it carries an optimizer with slots."""
    model = tiny_cnn()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 16, 16, 3), "float32"), np.zeros(4), verbose=0)
    return model


def verdict_of(model: keras.Model, **changes: Any) -> Verdict:
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=True,
        baseline_digest="b" * 64,
        candidate_digest=model_digest(model),
        checks=(PASSED,),
        baseline=measures,
        candidate=measures,
    )
    return verdict.model_copy(update=changes)
