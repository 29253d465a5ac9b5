"""What the user may say about calibration and similarity, and what is said back."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_cnn, tiny_data

import lrf_core as lrf
from lrf_core import similarity
from lrf_core.artifacts import DesignSpace
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, SpecError
from lrf_core.spec import DecomposeSpec, ExploreSpec

SETTINGS = ExploreSpec(methods=("tucker", "svd"), samples=32, ranks_per_mode=3)
MODEL = tiny_cnn()
DATA = tiny_data(64, 16)


def explored(model: keras.Model = MODEL, data: Data = DATA, **changes: object) -> DesignSpace:
    settings = SETTINGS.model_copy(update=changes)
    return lrf.explore(model, data, lrf.analyze(model, data, settings=settings), settings=settings)


@pytest.mark.parametrize("metric", similarity.names())
def test_the_threshold_policy_works_with_any_similarity(
    metric: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lrf"):
        space = explored(similarity=metric)
    values = sorted(candidate.similarity for candidate in space.candidates)
    assert 0 <= values[0] < values[-1] <= 1
    said = "ssim needs 2-D feature maps of 7x7 or more; judged by nmse instead: hidden"
    assert (said in caplog.text) == (metric == "ssim")
    limit = float(np.median(values))
    plan, _ = lrf.decompose(
        MODEL,
        DATA,
        [space],
        lrf.Goal(similarity=limit),
        settings=DecomposeSpec(policy="threshold", refit=False),
    )
    assert plan.replaced()
    assert all(candidate.similarity >= limit for candidate in plan.replaced())


def test_the_budget_changes_no_candidate() -> None:
    at_once, in_groups = explored(batch_size=16), explored(batch_size=16, memory_gib=0.0065)
    assert at_once.candidates == in_groups.candidates
    with pytest.raises(SpecError, match=r"explore.memory_gib allows 0.0001; set it to"):
        explored(memory_gib=0.0001)


def test_layers_without_gradient_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, name="blocked")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.ops.stop_gradient(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(12, 3, name="reached")(x))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    with caplog.at_level(logging.WARNING, "lrf"):
        space = explored(model)
    assert space.without_gradient() == ("blocked",)
    assert "no gradient of the loss reaches blocked: sensitivity is off there" in caplog.text
    assert all(
        (candidate.sensitivity == candidate.error) == (candidate.layer == "blocked")
        for candidate in space.candidates
    )
    assert DesignSpace.load(space.save(tmp_path / "space.parquet")) == space


def test_a_loss_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice.py").write_text(
        "import keras\n"
        "def confident(outputs):\n"
        "    return -10 * keras.ops.log(keras.ops.max(outputs, axis=-1))\n"
    )
    monkeypatch.chdir(tmp_path)
    usual, own = explored(), explored(loss="twice:confident")
    assert own.lineage.key() != usual.lineage.key()
    pairs = list(zip(own.candidates, usual.candidates, strict=True))
    assert all(one.ranks == other.ranks for one, other in pairs)
    assert any(one.sensitivity != other.sensitivity for one, other in pairs)
    goal = lrf.Goal(params_reduction=0.1)
    plan, _ = lrf.decompose(MODEL, DATA, [own], goal, settings=DecomposeSpec(refit=False))
    assert plan.replaced()


def test_calibration_samples_that_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    samples, labels = DATA.train.arrays()
    black = replace(DATA, train=Split.of(np.zeros_like(samples), labels))
    with pytest.raises(DataError, match="tiny: all 32 calibration samples are the same"):
        explored(data=black)
    broken = samples.astype(np.float32)
    broken[:] = np.where(np.arange(len(broken))[:, None, None, None] == 40, np.nan, broken)
    with pytest.raises(DataError, match="tiny: training sample 40 holds NaN"):
        explored(data=replace(DATA, train=Split.of(broken, labels)), samples=64)
    with caplog.at_level(logging.WARNING, "lrf"):
        space = explored(data=replace(DATA, train=Split.of(samples, np.zeros(len(labels)))))
    assert "all 32 calibration samples are of class 0" in caplog.text
    assert space.candidates
