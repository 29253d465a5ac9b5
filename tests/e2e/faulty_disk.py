"""Run every stage on a disk that is full or read-only, or with no room for temporary files.

Started by `test_disk_faults` in a mount namespace of its own, in which it may mount; writes what
came of each command as JSON. Arguments: a folder, a model file, a data file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lrf_core.commands import app as cli

STAGES = ("analyze", "explore", "decompose", "finetune", "validate", "publish")
FLAGS = {
    "explore": ["--set", "explore.samples=64"],
    "decompose": ["--params-reduction", "0.3"],
    "finetune": ["--epochs", "1"],
    "validate": ["--max-accuracy-drop", "50"],
}


def main(folder: Path, model: str, data: str) -> None:
    results = []
    disk, temporary = folder / "disk", folder / "tmp"
    for place in (disk, temporary):
        place.mkdir()
        mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", place)
    tempfile.tempdir = str(temporary)
    os.environ["TMPDIR"] = str(temporary)
    out = disk / "out"
    out.mkdir()
    for stage in STAGES:
        command = [stage, "--out", str(out), *FLAGS.get(stage, [])]
        if stage != "publish":
            command[1:1] = [model, "--data", data]
        before = content(out)
        for fault in (full(disk), read_only(disk), full(temporary)):
            with fault as name:
                code, said = run(command)
            changed = {name for name, _ in content(out).keys() ^ before.keys()}
            results.append(
                {
                    "stage": stage,
                    "fault": name,
                    "code": code,
                    "said": said,
                    # A run that was refused leaves what was there, and nothing else.
                    "changed": sorted(changed) if code else [],
                    "left_in_tmp": left_in(temporary),
                }
            )
            if not code:  # it needs no such place
                shutil.rmtree(out)
                restore(out, before)
        code, said = run(command)
        results.append({"stage": stage, "fault": "none", "code": code, "said": said})
        (folder / "results.json").write_text(json.dumps(results))


def run(command: list[str]) -> tuple[int, list[str]]:
    """Exit code of a command, and its lines on standard error that begin as those of lrf do."""
    errors = io.StringIO()
    sys.argv = ["lrf", *command]
    code = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    lines = errors.getvalue().splitlines()
    return code, [line for line in lines if line.startswith(("lrf: ", "Traceback"))]


def content(folder: Path) -> dict[tuple[str, bytes], None]:
    """Names and content of all files but the cache of scores and checkpoints, and the lock."""
    return {
        (str(path.relative_to(folder)), path.read_bytes()): None
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts and not path.name.startswith(".lock")
    }


def restore(folder: Path, files: dict[tuple[str, bytes], None]) -> None:
    for name, kept in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(kept)


def left_in(temporary: Path) -> list[str]:
    """But for what TensorFlow removes when its process ends."""
    names = sorted(path.name for path in temporary.iterdir())
    return [name for name in names if not name.startswith("__autograph_generated_file")]


@contextlib.contextmanager
def full(place: Path) -> Iterator[str]:
    """A disk with no space left."""
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield f"{place.name} full"
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[str]:
    mount("-o", "remount,ro", place)
    try:
        yield f"{place.name} read-only"
    finally:
        mount("-o", "remount,rw", place)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
