"""Keeps what was done, for the artifact and for the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from lrf_core.artifacts.promotion import PromotionStep

_logger = logging.getLogger("lrf")


class JournalEntry:
    """What a step found; set while it runs."""

    def __init__(self) -> None:
        self.detail = ""


class Journal:
    """The steps so far, in `steps`."""

    def __init__(self) -> None:
        self.steps: list[PromotionStep] = []

    @contextmanager
    def step(self, name: str) -> Iterator[JournalEntry]:
        """Record one step; it failed where an exception leaves it."""
        note, started, begun = JournalEntry(), datetime.now(UTC), time.monotonic()
        passed = False
        try:
            yield note
            passed = True
        except BaseException as error:
            note.detail = " ".join(str(error).split()) or type(error).__name__
            raise
        finally:
            self.steps.append(
                PromotionStep(
                    name=name,
                    started=started.isoformat(timespec="milliseconds"),
                    seconds=round(time.monotonic() - begun, 3),
                    passed=passed,
                    detail=note.detail,
                )
            )
            if passed:
                _logger.info("%s: done%s", name, f" ({note.detail})" if note.detail else "")
