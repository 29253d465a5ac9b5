"""Two runs in one output folder at once: the second is refused, unless they are of two parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import Trained
from typer.testing import CliRunner

from lrf_core.commands import app as cli
from lrf_core.errors import EXIT_FAILURE, ArtifactError, BusyError
from lrf_core.files.folder_lock import lock_folder

HOLDER = """
import sys, time
from pathlib import Path
from lrf_core.files.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1]), *sys.argv[2:]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_the_first_is_named(
    tmp_path: Path, other_run: subprocess.Popen[bytes]
) -> None:
    named = rf"process {other_run.pid}\) is writing to"
    with pytest.raises(BusyError, match=named) as caught, lock_folder(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    with pytest.raises(BusyError), lock_folder(tmp_path, "1-of-2"):
        pass


def test_a_run_that_is_killed_lets_go(tmp_path: Path, other_run: subprocess.Popen[bytes]) -> None:
    os.kill(other_run.pid, signal.SIGKILL)
    other_run.wait()
    with lock_folder(tmp_path):
        pass


def test_runs_of_two_parts_go_side_by_side(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "1-of-2"), lock_folder(tmp_path, "2-of-2"):
        for taken in ("1-of-2", ""):
            with pytest.raises(BusyError), lock_folder(tmp_path, taken):
                pass


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*--out"),
        lock_folder(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize(
    "command", ["compress", "analyze", "explore", "decompose", "finetune", "validate", "publish"]
)
def test_every_command_that_writes_is_refused(
    trained: Trained, tmp_path: Path, command: str
) -> None:
    inputs = [] if command == "publish" else [trained.model_file, "--data", trained.data_file]
    arguments = [command, *map(str, inputs), "--out", str(tmp_path)]
    with lock_folder(tmp_path):
        ended = CliRunner().invoke(cli.app, arguments)
    assert isinstance(ended.exception, BusyError)
    assert ended.exception.exit_code == EXIT_FAILURE
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}
