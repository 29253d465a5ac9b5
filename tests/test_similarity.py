"""Every metric: 1 for equal maps, within 0 and 1, smaller for a worse map."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Trained

import lrf_core as lrf
from lrf_core import similarity
from lrf_core.errors import SpecError
from lrf_core.similarity import (
    SSIM_SIDE,
    Similarity,
    cka,
    cosine,
    nmse,
    pearson,
    ssim,
)
from lrf_core.spec import make_spec

ROWS = 6 * SSIM_SIDE**2


def maps(seed: int, channels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(ROWS, channels)), rng.normal(size=(ROWS, channels))


@pytest.mark.parametrize("name", similarity.names())
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), noise=st.floats(0.05, 3.0))
def test_metrics_rank_maps_by_how_close_they_are(name: str, seed: int, noise: float) -> None:
    original, change = maps(seed)
    metric = similarity.get(name).compare
    near, far = (
        metric(original, original + noise * change),
        metric(original, original + 4 * noise * change),
    )
    assert metric(original, original) == pytest.approx(1.0)
    assert 0 <= far <= near < 1


@pytest.mark.parametrize("name", similarity.names())
@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_metrics_stay_between_0_and_1(name: str, seed: int) -> None:
    original, other = maps(seed)
    metric = similarity.get(name).compare
    for replaced in (other, -original, 1e3 * original, original - 1e3, 0 * original):
        assert 0 <= metric(original, replaced) <= 1
        assert 0 <= metric(replaced, original) <= 1


@pytest.mark.parametrize("name", similarity.names())
def test_dead_maps_do_not_break_a_metric(name: str) -> None:
    dead = np.zeros((SSIM_SIDE**2, 3))
    alive = np.random.default_rng(0).normal(size=dead.shape)
    metric = similarity.get(name).compare
    assert metric(dead, dead) == 1.0
    assert metric(dead, alive) == pytest.approx(0.0, abs=0.05)
    half = np.where(np.arange(len(dead))[:, None] % 2, alive, 0.0)
    assert metric(half, half) == pytest.approx(1.0)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 100.0), shift=st.floats(-10.0, 10.0))
def test_what_each_metric_ignores(seed: int, scale: float, shift: float) -> None:
    original, noise = maps(seed)
    replaced = original + 0.5 * noise
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    sizes = rng.uniform(0.1, 10.0, size=(ROWS, 1))
    assert nmse(scale * original @ rotation, scale * replaced @ rotation) == pytest.approx(
        nmse(original, replaced)
    )
    assert cosine(original, sizes * replaced) == pytest.approx(cosine(original, replaced))
    assert cka(original, scale * replaced @ rotation + shift) == pytest.approx(
        cka(original, replaced)
    )
    assert pearson(original, scale * replaced + shift) == pytest.approx(pearson(original, replaced))
    assert ssim(scale * original, scale * replaced) == pytest.approx(ssim(original, replaced))


@pytest.mark.parametrize("metric", [cosine, cka, pearson, ssim])
def test_symmetric_metrics(metric: object) -> None:
    original, noise = maps(3)
    replaced = original + noise
    assert callable(metric)
    assert metric(original, replaced) == pytest.approx(metric(replaced, original))


def test_pearson_is_that_of_numpy() -> None:
    original, noise = maps(1)
    replaced = original + noise
    expected = np.corrcoef(original.ravel(), replaced.ravel())[0, 1]
    assert pearson(original, replaced) == pytest.approx(expected)


def test_ssim_is_that_of_tensorflow_where_the_windows_coincide() -> None:
    """On maps of one window; a Gaussian of huge deviation weighs all its positions alike."""
    original, noise = maps(2, channels=3)
    original = np.maximum(original, 0)
    replaced = np.maximum(original + 0.3 * noise, 0)
    span = max(original.max(), replaced.max())
    images = [
        values.reshape(-1, SSIM_SIDE, SSIM_SIDE, 3).astype(np.float32)
        for values in (original, replaced)
    ]
    expected = tf.image.ssim(*images, span, filter_size=SSIM_SIDE, filter_sigma=1e3).numpy()
    assert ssim(original, replaced) == pytest.approx(float(expected.mean()), abs=1e-4)


def test_ssim_sees_structure_that_other_metrics_do_not() -> None:
    """The same values at other places of the window."""
    window = np.sin(np.arange(SSIM_SIDE**2) / 3)[:, None]
    moved = np.roll(window, 9, axis=0)
    assert ssim(window, moved) < 0.2
    assert ssim(window, 0.9 * window) > 0.95


def test_unknown_metrics_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"unknown similarity 'ssmi'.*did you mean 'ssim'"):
        similarity.get("ssmi")
    with pytest.raises(SpecError, match=r"explore.similarity.*did you mean 'pearson'"):
        make_spec({"model": "m", "data": "d", "explore": {"similarity": "person"}})
    with pytest.raises(ValueError, match="'nmse' is registered already"):
        similarity.register(Similarity("nmse", nmse))


def test_a_registered_similarity_chooses_ranks(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_registry", dict(similarity._registry))
    similarity.register(Similarity("halved", lambda original, replaced: 0.5))
    settings = lrf.ExploreSpec(samples=64, similarity="halved", ranks_per_mode=4)
    analysis = lrf.analyze(trained.model, trained.data, settings=settings)
    space = lrf.explore(trained.model, trained.data, analysis, settings=settings)

    assert space.similarity == "halved"
    assert {candidate.similarity for candidate in space.candidates} == {0.5}
    # One threshold for all layers: every candidate reaches it, so the smallest are chosen.
    plan, _ = lrf.decompose(
        trained.model,
        trained.data,
        [space],
        lrf.Goal(params_reduction=0.5),
        settings=lrf.DecomposeSpec(policy="threshold", refit=False),
    )
    for chosen in plan.replaced():
        of_layer = [each for each in space.candidates if each.layer == chosen.layer]
        assert chosen.cost.params == min(each.cost.params for each in of_layer)
