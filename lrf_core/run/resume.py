"""Which stages of a run are finished, so that a second run starts where the first stopped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from lrf_core import telemetry
from lrf_core.artifacts import digest_of, versions
from lrf_core.errors import LrfError
from lrf_core.files.atomic import write_atomically

_logger = logging.getLogger("lrf")
_Result = TypeVar("_Result")


class FinishedStages:
    """The stages of a run, each of which is computed once.

    A result is loaded again if everything that decides it is unchanged: model, data, package
    versions, and the settings of its stage and of all stages before.

    Args:
        key: what the first stage depends on.
        finished: name of each finished stage to its key; shared by all branches of a run.
        branch: which plan the stages belong to, in words; empty if to none.
    """

    def __init__(self, file: Path, key: str, finished: dict[str, str], branch: str = "") -> None:
        self._file = file
        self._key = key
        self._finished = finished
        self._branch = branch

    @classmethod
    def of_run(cls, file: Path, model: str, data: str) -> FinishedStages:
        """Args: the digests of the model and of the data."""
        return cls(file, digest_of([model, data, versions()]), _read(file))

    def of_plan(self, number: int, count: int) -> FinishedStages:
        """The stages of one of `count` plans, after the stages so far."""
        branch = f" of plan {number}" if count > 1 else ""
        return FinishedStages(self._file, digest_of([self._key, number]), self._finished, branch)

    def after(self, branches: Iterable[FinishedStages]) -> FinishedStages:
        """The stages after those of all branches."""
        key = digest_of([self._key, *(branch._key for branch in branches)])
        return FinishedStages(self._file, key, self._finished)

    def once(
        self,
        stage: str,
        settings: dict[str, Any],
        load: Callable[[], _Result],
        compute: Callable[[], _Result],
        save: Callable[[_Result], object],
    ) -> _Result:
        """Load the stage's result if it is finished; else compute and save it."""
        self._key = digest_of([self._key, stage, settings])
        name = stage + self._branch
        if self._finished.get(name) == self._key:
            try:
                result = load()
            except LrfError as error:
                _logger.warning("%s: finished before, but %s; running it again", name, error)
            else:
                _logger.info("%s: loaded from the earlier run", name)
                return result
        self._record(name, None)
        with telemetry.stage(stage):
            result = compute()
            save(result)
        self._record(name, self._key)
        return result

    def _record(self, stage: str, key: str | None) -> None:
        self._finished.pop(stage, None)
        if key is not None:
            self._finished[stage] = key
        write_atomically(self._file, json.dumps(self._finished).encode())


def _read(file: Path) -> dict[str, str]:
    try:
        finished = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a first run, or a file that no run has finished writing
    if not isinstance(finished, dict):
        return {}
    return {str(stage): str(key) for stage, key in finished.items()}
