"""Predicted output errors are the measured ones, and full rank is the layer itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import soundness
from benchmarks.soundness import KINDS, outcomes
from lrf_core import methods

# Of float32 answers, as a share of the largest.
ROUNDING = 1e-5


def check_predictions(layers: int, seed: int) -> None:
    found = list(outcomes(layers, seed, full=False))
    assert {each.kind for each in found} == set(KINDS)
    assert {each.method.split()[0] for each in found} == set(methods.names())
    worst = max(found, key=lambda each: each.ratio)
    assert worst.ratio < 1.1, soundness.described(worst)


def check_identities(layers: int, seed: int) -> None:
    worst = max(outcomes(layers, seed, full=True), key=lambda each: each.difference)
    assert worst.difference < ROUNDING, soundness.described(worst)


def test_the_predicted_error_of_random_layers_is_the_measured_one() -> None:
    check_predictions(20, seed=7)


def test_random_layers_at_full_rank_answer_as_they_are() -> None:
    check_identities(10, seed=8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_predictions_and_identities_of_many_random_layers(seed: int) -> None:
    check_predictions(150, seed)
    check_identities(60, seed)


def test_the_table_and_the_file_have_every_kind_of_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soundness.json"
    arguments = ["--layers", "5", "--identities", "5", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["soundness", *arguments])
    soundness.main()
    written, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert [row["layer"] for row in written["rows"]] == [*KINDS, "all"]
    assert all(row["worst_ratio"] < 1.1 for row in written["rows"])
    assert "worst_identity" in printed


def test_equal_seeds_give_equal_outcomes() -> None:
    first, second = (list(outcomes(2, 3, full=True)) for _ in range(2))
    assert first == second
