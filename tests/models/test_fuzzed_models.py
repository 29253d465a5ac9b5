"""Mutated model files are loaded or refused; `benchmarks.fuzz_models` tries thousands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_models import Seed, Watch, mutated_file, outcome_of, peak_megabytes, seeds
from benchmarks.fuzz_models import symbols as all_symbols

pytestmark = pytest.mark.filterwarnings("ignore")
SYMBOLS = all_symbols()


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch.started(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def sound(watch: Watch) -> list[Seed]:
    return seeds(watch.folder)


def test_sound_files_are_loaded(sound: list[Seed], watch: Watch) -> None:
    assert {outcome_of(*seed.write(watch.folder, None)) for seed in sound} == {"loaded"}


def check(number: int, sound: list[Seed], watch: Watch) -> None:
    draw, before = random.Random(number), peak_megabytes()
    path, weights = mutated_file(draw.choice(sound), draw, SYMBOLS, watch.folder)
    with watch.watching():
        outcome = outcome_of(path, weights)
    assert outcome in ("loaded", "refused")
    assert not watch.executed
    assert not watch.outside
    assert peak_megabytes() - before < 200


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 1 << 32))
def test_a_mutated_file_is_loaded_or_refused(
    number: int, sound: list[Seed], watch: Watch, own_cache: Path
) -> None:
    check(number, sound, watch)


@pytest.mark.slow
@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 1 << 32))
def test_many_mutated_files_are_loaded_or_refused(
    number: int, sound: list[Seed], watch: Watch, own_cache: Path
) -> None:
    check(number, sound, watch)
