"""A large design space is read, joined and allocated in bounded memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import large_space

# Python objects of one candidate, and its row of the knapsack's columns.
BYTES_PER_CANDIDATE = 3000


def run(layers: int, candidates: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    arguments = ["--layers", layers, "--candidates", candidates, "--out", out]
    monkeypatch.setattr(sys, "argv", ["large_space", *map(str, arguments)])
    large_space.main()
    written: dict = json.loads(out.read_text())
    assert written["facts"]["candidates"] == layers * candidates
    begin, *_, end = written["rows"]
    assert end["step"] == "half of params and macs"
    return {"taken": (end["memory_gib"] - begin["memory_gib"]) * 2**30, **written}


def test_every_step_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(12, 50, tmp_path / "large.json", monkeypatch)
    steps = [row["step"] for row in found["rows"]]
    assert steps[:4] == ["begin", "read", "join", "columns"]


@pytest.mark.slow
def test_memory_grows_with_the_candidates_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(200, 2000, tmp_path / "large.json", monkeypatch)
    assert found["taken"] < 200 * 2000 * BYTES_PER_CANDIDATE
