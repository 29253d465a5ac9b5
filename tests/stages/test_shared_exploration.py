"""explore in parts, in pieces and again: the same design space, bit for bit, and no work twice."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import Trained

import lrf_core as lrf
from lrf_core import methods
from lrf_core.artifacts import DesignSpace
from lrf_core.errors import ArtifactError, StorageError
from lrf_core.exploration.merge import merged

SETTINGS = lrf.ExploreSpec(samples=48, batch_size=16, ranks_per_mode=4)


class CountedPass(keras.layers.Layer):
    """Gives its input back, and counts how often it is run, also inside a compiled graph."""

    runs = 0

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        tf.py_function(self._count, [], [])
        return inputs

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    @classmethod
    def _count(cls) -> None:
        cls.runs += 1


def data_for(model: keras.Model, count: int = 64) -> lrf.Data:
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (count, *model.input_shape[1:])).astype(np.float32)
    labels = np.arange(count) % model.output_shape[-1]
    split = lrf.Split.of(images, labels)
    return lrf.Data(split, split, ("a", "b"), "random", "digest")


@pytest.fixture(scope="module")
def mobile() -> tuple[keras.Model, lrf.Data, lrf.Analysis]:
    """MobileNet, a quarter as wide."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=10
    )
    data = data_for(model)
    return model, data, lrf.analyze(model, data, settings=SETTINGS)


@pytest.fixture(scope="module")
def tiny(trained: Trained) -> tuple[keras.Model, lrf.Data, lrf.Analysis]:
    """All six methods."""
    analysis = lrf.analyze(trained.model, trained.data, settings=SETTINGS)
    assert {name for layer in analysis.layers for name in layer.methods} == set(methods.names())
    return trained.model, trained.data, analysis


def same(one: DesignSpace, other: DesignSpace) -> bool:
    """Everything but where it comes from: floats bit for bit, candidates in the same order."""
    return one.model_dump(exclude={"lineage"}) == other.model_dump(exclude={"lineage"})


@pytest.mark.parametrize("which", ["tiny", pytest.param("mobile", marks=pytest.mark.slow)])
def test_any_number_of_shards_makes_the_same_whole(
    which: str, request: pytest.FixtureRequest
) -> None:
    model, data, analysis = request.getfixturevalue(which)
    whole = lrf.explore(model, data, analysis, settings=SETTINGS)
    assert len(whole.layers) == len(analysis.eligible())
    assert whole.candidates
    for count in (1, 2, 3, 7):
        shards = [
            lrf.explore(model, data, analysis, settings=SETTINGS, shard=lrf.Shard(number, count))
            for number in range(count, 0, -1)
        ]
        assert same(merged(shards), whole), count
        assert sum(bool(shard.layers) for shard in shards) == min(count, len(whole.layers))


def test_a_plan_needs_all_shards(tiny: tuple[keras.Model, lrf.Data, lrf.Analysis]) -> None:
    model, data, analysis = tiny
    part = lrf.explore(model, data, analysis, settings=SETTINGS, shard=lrf.Shard(2, 3))
    with pytest.raises(ArtifactError, match=r"shard 1/3, 3/3 is missing"):
        lrf.decompose(model, data, [part], lrf.Goal(params_reduction=0.1))


@pytest.fixture(scope="module")
def counted(trained: Trained) -> tuple[keras.Model, lrf.Data, lrf.Analysis]:
    """The tiny model, with a layer in front that counts passes."""
    inputs = keras.Input(trained.model.input_shape[1:])
    model = keras.Model(inputs, trained.model(CountedPass()(inputs)))
    return model, trained.data, lrf.analyze(model, trained.data, settings=SETTINGS)


@pytest.fixture
def scored(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Fills with "layer by method" as scoring begins."""
    begun: list[str] = []

    class Begun(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("scoring "):
                begun.append(record.getMessage().removeprefix("scoring "))

    handler = Begun()
    logger = logging.getLogger("lrf")
    logger.addHandler(handler)
    with caplog.at_level(logging.DEBUG, "lrf"):
        yield begun
    logger.removeHandler(handler)


def test_a_repeated_exploration_does_nothing_twice(
    counted: tuple[keras.Model, lrf.Data, lrf.Analysis],
    scored: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, data, analysis = counted
    cached = SETTINGS.model_copy(update={"cache": str(tmp_path / "cache")})
    plain = lrf.explore(model, data, analysis, settings=SETTINGS)
    scored.clear()
    first = lrf.explore(model, data, analysis, settings=cached)
    tasks = sorted(scored)
    assert len(tasks) == len(set(tasks)) == sum(len(r.methods) for r in analysis.eligible())
    assert first.lineage.key() == plain.lineage.key()
    assert same(first, plain)

    CountedPass.runs = 0
    scored.clear()
    again = lrf.explore(model, data, analysis, settings=cached)
    assert same(again, plain)
    assert scored == []
    assert CountedPass.runs == 0
    assert f"{len(tasks)} of {len(tasks)} scores" in caplog.text

    lost = [file for file in (tmp_path / "cache").rglob("*.json") if "conv1b" in file.read_text()]
    lost[0].unlink()
    lost[1].write_bytes(lost[1].read_bytes()[:100])
    CountedPass.runs = 0
    mended = lrf.explore(model, data, analysis, settings=cached)
    assert same(mended, plain)
    assert len(scored) == 2
    assert all("conv1b" in task for task in scored)
    assert CountedPass.runs >= 48 / 16
    assert "is not used and made again" in caplog.text
    scored.clear()
    assert same(lrf.explore(model, data, analysis, settings=cached), plain)
    assert scored == []


def test_shards_and_fewer_methods_share_one_cache(
    tiny: tuple[keras.Model, lrf.Data, lrf.Analysis], scored: list[str], tmp_path: Path
) -> None:
    model, data, analysis = tiny
    cached = SETTINGS.model_copy(update={"cache": str(tmp_path)})
    shards = [
        lrf.explore(model, data, analysis, settings=cached, shard=lrf.Shard(number, 3))
        for number in (1, 2, 3)
    ]
    scored.clear()
    whole = lrf.explore(model, data, analysis, settings=cached)
    assert same(whole, merged(shards))
    fewer = cached.model_copy(update={"methods": ("svd", "cp")})
    some = lrf.explore(model, data, analysis, settings=fewer)
    assert scored == []
    assert {candidate.method for candidate in some.candidates} == {"svd", "cp"}
    assert set(some.candidates) == {c for c in whole.candidates if c.method in ("svd", "cp")}


@pytest.mark.parametrize(
    "change", [{"ranks_per_mode": 3}, {"similarity": "cka"}, {"batch_size": 24}, {"samples": 40}]
)
def test_other_settings_are_scored_anew(
    change: dict[str, object],
    tiny: tuple[keras.Model, lrf.Data, lrf.Analysis],
    scored: list[str],
    tmp_path: Path,
) -> None:
    model, data, analysis = tiny
    few = {"cache": str(tmp_path), "methods": ("svd",)}
    lrf.explore(model, data, analysis, settings=SETTINGS.model_copy(update=few))
    before = len(scored)
    lrf.explore(model, data, analysis, settings=SETTINGS.model_copy(update={**few, **change}))
    assert len(scored) == 2 * before > 0


def test_another_model_or_seed_is_scored_anew(
    tiny: tuple[keras.Model, lrf.Data, lrf.Analysis], scored: list[str], tmp_path: Path
) -> None:
    model, data, analysis = tiny
    few = SETTINGS.model_copy(update={"cache": str(tmp_path), "methods": ("svd",)})
    lrf.explore(model, data, analysis, settings=few)
    before = len(scored)
    lrf.explore(model, data, analysis, settings=few, seed=1)
    assert len(scored) == 2 * before > 0
    other = keras.models.clone_model(model)
    other.set_weights([weight * 1.001 for weight in model.get_weights()])
    lrf.explore(other, data, lrf.analyze(other, data, settings=SETTINGS), settings=few)
    assert len(scored) == 3 * before


def test_a_cache_that_cannot_be_used_is_said_before_any_work(
    counted: tuple[keras.Model, lrf.Data, lrf.Analysis], tmp_path: Path
) -> None:
    model, data, analysis = counted
    (tmp_path / "file").write_text("in the way")
    CountedPass.runs = 0
    blocked = SETTINGS.model_copy(update={"cache": str(tmp_path / "file" / "cache")})
    with pytest.raises(StorageError, match="cache of scores cannot be used"):
        lrf.explore(model, data, analysis, settings=blocked)
    assert CountedPass.runs == 0


def test_a_cache_that_is_lost_on_the_way_does_not_end_the_work(
    tiny: tuple[keras.Model, lrf.Data, lrf.Analysis],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, data, analysis = tiny
    cache = tmp_path / "cache"

    class Lost(logging.Handler):
        """A file takes the place of the cache's folder as soon as scoring begins."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("scoring ") and cache.is_dir():
                shutil.rmtree(cache, ignore_errors=True)
                cache.write_text("in the way")

    lost = Lost()
    logging.getLogger("lrf").addHandler(lost)
    some = SETTINGS.model_copy(update={"methods": ("svd", "qr")})
    try:
        with caplog.at_level(logging.DEBUG, "lrf"):
            found = lrf.explore(
                model, data, analysis, settings=some.model_copy(update={"cache": str(cache)})
            )
    finally:
        logging.getLogger("lrf").removeHandler(lost)
    assert same(found, lrf.explore(model, data, analysis, settings=some))
    assert "are not kept" in caplog.text
