"""Runs on this machine: `python -m pipelines run`, each in a process that outlives the controller.

DIR/<request>/out is the folder of the run, which a later attempt takes up; DIR/<request>/<attempt>
holds the lock, the log, and what came out.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lrf_core.artifacts import Release, Verdict
from lrf_core.errors import (
    EXIT_BAD_INPUT,
    EXIT_GATE_REFUSED,
    EXIT_OK,
    LrfError,
    StorageError,
)
from lrf_core.files.atomic import write_atomically
from lrf_core.sandbox.setting import VARIABLE
from pipelines.controller.engine import RunEnd, RunRequest, result_of
from pipelines.controller.run_here import LOG, OUTPUT, RESULT

_PIPELINES = (sys.executable, "-m", "pipelines", "run")
_LOCK = "lock"


@dataclass
class LocalRuns:
    """An engine. A run's id is `<request>/<attempt>`, where its files are below `folder`.

    Attributes:
        command: is given a spec, `--out DIR` and `--json`.
    """

    folder: Path
    command: Sequence[str] = _PIPELINES
    # The lock decides between those who start the same run.
    takeover_delay_s: float = 0.0
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, work: RunRequest) -> str:
        run_id = f"{work.address[:24]}/{work.attempt}"
        place = self.folder / run_id
        try:
            self._start(work, place)
        except OSError as error:
            raise StorageError(
                f"cannot start a run in {place}: {error.strerror or error}; make room, or name "
                "another folder in --local"
            ) from None
        return run_id

    def poll(self, run_id: str) -> RunEnd | None:
        self._reap()
        place = self.folder / run_id
        if (place / RESULT).is_file():
            return _ended(place)
        if not place.is_dir():
            return RunEnd("failed", f"the run's folder {place} is gone")
        with (place / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
        # It may have ended between the two looks.
        if (place / RESULT).is_file():
            return _ended(place)
        return RunEnd("failed", f"the run was killed; its log is {place / LOG}")

    def _start(self, work: RunRequest, place: Path) -> None:
        self._reap()
        place.mkdir(parents=True, exist_ok=True)
        with (place / _LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it runs
            if (place / RESULT).is_file():
                return
            spec = place / "spec.yaml"
            write_atomically(spec, yaml.safe_dump(work.settings, sort_keys=False).encode())
            out = place.parent / "out"
            run = [*self.command, str(spec), "--out", str(out), "--json"]
            wrapper = [sys.executable, "-m", "pipelines.controller.run_here"]
            with (place / LOG).open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 - our own module
                    [*wrapper, str(place), str(lock.fileno()), *run],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock.fileno(),),
                    start_new_session=True,
                    # Others put the models there.
                    env={
                        VARIABLE: "1",
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(sys.path),
                    },
                )
        self._children.append(child)

    def _reap(self) -> None:
        self._children = [child for child in self._children if child.poll() is None]


def _ended(place: Path) -> RunEnd:
    try:
        found = json.loads((place / RESULT).read_bytes())
        code, said = int(found["exit_code"]), str(found["said"]).removeprefix("lrf: ")
        if code in (EXIT_OK, EXIT_GATE_REFUSED):
            return _judged(place, code)
    except (OSError, ValueError, KeyError, TypeError, LrfError) as error:
        return RunEnd("failed", f"cannot read what the run in {place} left: {error}")
    if code == EXIT_BAD_INPUT:
        return RunEnd("bad_input", said)
    return RunEnd("failed", said or f"the run ended with exit code {code}; see {place / LOG}")


def _judged(place: Path, code: int) -> RunEnd:
    printed: dict[str, Any] = json.loads((place / OUTPUT).read_bytes())
    try:
        verdict = Verdict.model_validate(printed["verdict"])
        release = Release.model_validate(printed["release"]) if printed["release"] else None
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    result = result_of(verdict, release, str(printed.get("report") or place))
    if code == EXIT_OK:
        return RunEnd("published", result=result)
    return RunEnd(
        "refused", f"the candidate failed the gate: {'; '.join(result.failed_checks)}", result
    )
