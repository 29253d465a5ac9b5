"""Damaged inputs end in one line, and start, open or change nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fuzzed(out: Path, count: int, seed: int) -> dict[str, object]:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.fuzz_inputs"),
            *(f"--count={count}", f"--seed={seed}", f"--out={out}"),
        ],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    written: dict[str, object] = json.loads(out.read_text())
    return written


def check(written: dict[str, object], count: int) -> None:
    rows = written["rows"]
    assert isinstance(rows, list)
    assert len(rows) == 6
    for row in rows:
        assert row["cases"] == row["read"] + row["refused"] == count // 6
        assert row["refused"] > row["cases"] // 3
        for problem in ("other_errors", "executed", "outside", "slow", "crashed"):
            assert row[problem] == 0
        assert row["peak_mib"] < 1024


@pytest.mark.slow
def test_a_thousand_damaged_files_do_no_harm(tmp_path: Path) -> None:
    check(fuzzed(tmp_path / "fuzz.json", 1002, seed=7), 1002)


def test_some_damaged_files_do_no_harm(tmp_path: Path) -> None:
    check(fuzzed(tmp_path / "fuzz.json", 180, seed=8), 180)


WATCHED = """
import os, subprocess, sys
from pathlib import Path
from benchmarks.fuzz_inputs import Watch
folder = Path(sys.argv[1])
(folder / "in").mkdir()
os.chdir(folder / "in")
watch = Watch(folder / "in")
sys.addaudithook(watch)
with watch.on():
    Path("b").write_text("")
    (folder / "in" / "b").rename("c")
print(watch.outside + watch.executed)
with watch.on():
    (folder / "a").write_text("")
    Path("../a").rename("../b")
    subprocess.run(["true"])
print(watch.outside + watch.executed)
"""


def test_what_is_looked_for_would_be_found(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=True,
    )
    harmless, harmful = ended.stdout.splitlines()
    assert harmless == "[]"
    for found in (f"open {tmp_path / 'a'}", "os.rename ../a", "subprocess.Popen"):
        assert found in harmful
