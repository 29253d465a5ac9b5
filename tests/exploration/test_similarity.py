"""Every metric: 1 for equal maps, within 0 and 1, smaller for a worse map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.exploration.similarity import METRICS, cka, cosine, nmse


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), noise=st.floats(0.05, 3.0))
def test_metrics_rank_maps_by_how_close_they_are(name: str, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    original = rng.normal(size=(200, 5))
    change = rng.normal(size=(200, 5))
    metric = METRICS[name]
    near, far = (
        metric(original, original + noise * change),
        metric(original, original + 4 * noise * change),
    )
    assert metric(original, original) == pytest.approx(1.0)
    assert 0 <= far <= near <= 1 + 1e-9


@pytest.mark.parametrize("name", METRICS)
def test_dead_maps_do_not_break_a_metric(name: str) -> None:
    dead, alive = np.zeros((10, 3)), np.ones((10, 3)) * np.arange(3)
    assert METRICS[name](dead, dead) == 1.0
    assert METRICS[name](dead, alive + np.arange(10)[:, None]) == 0.0


def test_what_each_metric_ignores() -> None:
    rng = np.random.default_rng(0)
    original = rng.normal(size=(500, 4))
    rotated = original @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert cka(original, 3 * rotated + 5) == pytest.approx(1.0)
    assert cosine(original, 3 * original) == pytest.approx(1.0)
    assert nmse(original, 3 * original) == 0.0
