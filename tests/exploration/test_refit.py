"""Refitting in order brings the answers closer to the original's, at the same cost."""

from __future__ import annotations

import keras
import numpy as np
from tiny import Trained, tiny_arrays, tiny_cnn

import lrf_core as lrf
from lrf_core.calibration import collect_moments
from lrf_core.calibration.paired import PairedCalibration
from lrf_core.models.inventory import kernel_matrix
from lrf_core.models.trace import walk

EXPLORE = lrf.ExploreSpec(samples=256, ranks_per_mode=8)


def logits(model: keras.Model, samples: np.ndarray) -> np.ndarray:
    return np.log(model.predict(samples, verbose=0) + 1e-6)


def test_refitted_answers_are_closer(trained: Trained) -> None:
    analysis = lrf.analyze(trained.model, trained.data, settings=EXPLORE)
    space = lrf.explore(trained.model, trained.data, analysis, settings=EXPLORE)
    samples, _ = trained.data.test.arrays()
    wanted = logits(trained.model, samples)
    distance, costs = {}, set()
    for refit in (False, True):
        plan, model = lrf.decompose(
            trained.model,
            trained.data,
            [space],
            lrf.Goal(params_reduction=0.5),
            settings=lrf.DecomposeSpec(refit=refit),
        )
        distance[refit] = np.mean((logits(model, samples) - wanted) ** 2)
        costs.add(plan.after)
    assert distance[True] < 0.9 * distance[False]
    assert len(costs) == 1


def test_pairs_of_a_model_with_itself_are_its_moments() -> None:
    """`x` is the same in both, so its moment with `y = W^T x` is `S W`."""
    model, (samples, _) = tiny_cnn(), tiny_arrays(64)
    layers = {path: layer for path, layer in walk(model) if path in ("conv0b", "hidden")}
    moments = collect_moments(model, layers, samples, batch_size=16)
    pairs = PairedCalibration(model, layers, samples, batch_size=16, seed=0)
    for path, layer in layers.items():
        paired = pairs.moments(model, path)
        scale = np.abs(moments[path].second).max()
        np.testing.assert_allclose(paired.second, moments[path].second, atol=1e-4 * scale)
        expected = moments[path].second @ kernel_matrix(layer)
        np.testing.assert_allclose(paired.cross, expected, atol=1e-4 * np.abs(expected).max())
        assert paired.rows_seen == moments[path].rows_seen
