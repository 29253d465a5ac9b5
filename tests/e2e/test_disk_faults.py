"""A disk that is full or read-only at any stage: one clear line, and nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny import Trained
from typer.testing import CliRunner

from lrf_core.commands import app as cli
from lrf_core.errors import LrfError

ROOT = Path(__file__).parents[2]


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """What a full disk is to a program: writing ends in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_ends_analyze_in_one_line_and_it_can_be_run_again(
    trained: Trained, tmp_path: Path, size: int
) -> None:
    out = tmp_path / "out"
    command = ["analyze", str(trained.model_file), "--data", str(trained.data_file)]
    command += ["--out", str(out)]
    with files_no_longer_than(size):
        ended = CliRunner().invoke(cli.app, command)
    assert isinstance(ended.exception, LrfError), ended.exception
    assert ended.exception.exit_code == 2
    assert "\n" not in str(ended.exception)
    assert "cannot write" in str(ended.exception)
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert CliRunner().invoke(cli.app, command).exit_code == 0


def may_mount() -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="module")
def results(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not may_mount():
        pytest.skip("mounting needs root and a mount namespace, which are not there")
    folder = tmp_path_factory.mktemp("faults")
    ended = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", sys.executable),
            *(str(Path(__file__).with_name("faulty_disk.py")), str(folder)),
            *(str(trained.model_file), str(trained.data_file)),
        ],
        cwd=ROOT,
        env={**os.environ, "LRF_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_every_stage_ends_in_one_line_and_leaves_nothing_half_written(
    results: list[dict[str, Any]],
) -> None:
    faults = [each for each in results if each["fault"] != "none"]
    assert len(faults) == 18
    without_room = {each["stage"]: each["code"] for each in faults if each["fault"] == "tmp full"}
    # Not 3: that a model cannot be converted for want of room says nothing about it.
    assert {without_room[stage] for stage in ("analyze", "validate", "publish")} == {2}
    for each in faults:
        needs_no_such_place = each["code"] == 0 and each["fault"] == "tmp full"
        assert needs_no_such_place or each["code"] in (1, 2), each
        assert len(each["said"]) == (0 if needs_no_such_place else 1), each
        assert "unexpected" not in "".join(each["said"]), each
        assert each["changed"] == [], each
        assert each["left_in_tmp"] == [], each


@pytest.mark.slow
def test_the_same_command_completes_once_there_is_room(results: list[dict[str, Any]]) -> None:
    again = [each for each in results if each["fault"] == "none"]
    assert [each["code"] for each in again] == [0] * 6, again
