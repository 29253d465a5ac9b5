"""What a killed process leaves is swept by the next one; nothing that lives is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lrf_core.files import scratch
from lrf_core.files.atomic import write_atomically

ROOT = Path(__file__).parents[1]

FOLDER = """
import os, sys
os.environ["TMPDIR"] = sys.argv[1]
from lrf_core.files.scratch import scratch_folder
with scratch_folder("publish") as folder:
    (folder / "model.keras").write_bytes(bytes(1000))
    print("made", flush=True)
    sys.stdin.read()
"""
FILE = """
import sys
from pathlib import Path
from lrf_core.files.atomic import write_atomically_with
def write(name):
    Path(name).write_bytes(bytes(1000))
    print("made", flush=True)
    sys.stdin.read()
write_atomically_with(Path(sys.argv[1]) / "plan.json", write)
"""


@contextmanager
def owner(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has made something in a folder, and lives until standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"made\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def killed(script: str, folder: Path) -> Path:
    """What a process that was killed has left."""
    before = set(folder.iterdir())
    with owner(script, folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    [left] = set(folder.iterdir()) - before
    return left


def run_once(script: str, folder: Path) -> None:
    with owner(script, folder):
        pass


@pytest.mark.parametrize("script", [FOLDER, FILE])
def test_what_a_killed_process_left_is_swept_by_the_next(script: str, tmp_path: Path) -> None:
    left = killed(script, tmp_path)
    with owner(script, tmp_path):
        assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"plan.json"}


@pytest.mark.parametrize("script", [FOLDER, FILE])
def test_what_a_living_process_uses_stays(script: str, tmp_path: Path) -> None:
    with owner(script, tmp_path):
        [used] = tmp_path.iterdir()
        run_once(script, tmp_path)
        assert used.exists()


def _renamed(left: Path, machine: str) -> Path:
    other = left.with_name(left.name.replace(scratch._machine(), machine))
    left.rename(other)
    return other


def test_what_another_machine_left_stays(tmp_path: Path) -> None:
    left = _renamed(killed(FOLDER, tmp_path), "00000000.00000000")
    run_once(FOLDER, tmp_path)
    assert left.exists()


@pytest.mark.parametrize("same", ["host", "boot"])
def test_what_was_left_before_a_restart_or_in_another_container_is_swept(
    same: str, tmp_path: Path
) -> None:
    host, boot = scratch._machine().split(".")
    name = f"{host}.00000000" if same == "host" else f"00000000.{boot}"
    left = _renamed(killed(FOLDER, tmp_path), name)
    run_once(FOLDER, tmp_path)
    assert not left.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_what_another_user_left_stays(tmp_path: Path) -> None:
    left = killed(FOLDER, tmp_path)
    os.chown(left, 12345, 12345)
    run_once(FOLDER, tmp_path)
    assert left.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "file").touch()
    (folder / f"lrf-publish-{scratch._machine()}-abcdefgh").symlink_to(elsewhere)
    inner = killed(FOLDER, folder)
    (inner / "link").symlink_to(elsewhere)
    run_once(FOLDER, folder)
    assert not inner.exists()
    assert (elsewhere / "file").exists()


def test_files_of_others_stay(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".writing-lock", ".writing-source", "lrf-notes", "a")]
    for file in others:
        file.touch()
    run_once(FILE, tmp_path)
    run_once(FOLDER, tmp_path)
    assert all(file.exists() for file in others)


def test_several_may_sweep_at_once(tmp_path: Path) -> None:
    left = [killed(FOLDER, tmp_path) for _ in range(3)]
    with owner(FOLDER, tmp_path) as living:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: run_once(FOLDER, tmp_path), range(3)))
        assert living.poll() is None
        assert len(list(tmp_path.iterdir())) == 1
    assert not any(path.exists() for path in left)


def test_makers_and_sweepers_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(index: int) -> None:
        for turn in range(50):
            scratch.sweep.cache_clear()
            write_atomically(tmp_path / f"{index}.json", str(turn).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert {path.name for path in tmp_path.iterdir()} == {f"{i}.json" for i in range(4)}
