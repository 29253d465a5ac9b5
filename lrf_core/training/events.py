"""What a worker tells the process that started it: progress, its log, and why it fails.

Events are lines of JSON on a pipe of their own. Whatever libraries print stays out of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from lrf_core.console.progress import Advance, shown_by, work
from lrf_core.redaction import shown

_logger = logging.getLogger("lrf")


class Sender(logging.Handler):
    """The worker's end: a progress display, and a handler of its log."""

    def __init__(self, pipe: TextIO) -> None:
        super().__init__()
        self._pipe = pipe

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While open, work and the log of this process are sent."""
        level = _logger.level
        _logger.addHandler(self)
        _logger.setLevel(logging.INFO)
        try:
            with shown_by(self.display):
                yield
        finally:
            _logger.removeHandler(self)
            _logger.setLevel(level)

    @contextmanager
    def display(self, description: str, total: int) -> Iterator[Advance]:
        """A `progress.Display`."""
        self._send(kind="work", description=description, total=total)
        yield lambda steps: self._send(kind="advance", steps=steps)
        self._send(kind="done")

    def emit(self, record: logging.LogRecord) -> None:
        self._send(kind="log", level=record.levelno, text=record.getMessage())

    def failed(self, exit_code: int, reason: str) -> None:
        """Say why this process ends."""
        self._send(kind="failed", exit_code=exit_code, reason=shown(" ".join(reason.split())))

    def _send(self, **event: Any) -> None:
        self.acquire()  # threads log, too
        try:
            self._pipe.write(json.dumps(event) + "\n")
            self._pipe.flush()
        finally:
            self.release()


class Receiver:
    """The other end, of one worker.

    Attributes:
        failed: exit code and reason, once the worker has given them.
    """

    def __init__(self, shows: bool) -> None:
        """Args:
        shows: whether its progress and log are shown here; of one worker, they are.
        """
        self.failed: tuple[int, str] | None = None
        self._shows = shows
        self._open = ExitStack()
        self._advance: Advance | None = None
        self._rest = b""

    def take(self, content: bytes) -> None:
        """Obey what has come over the pipe; lines may be cut anywhere."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def close(self) -> None:
        """End the work that the worker has left open."""
        self._open.close()
        self._advance = None

    def _obey(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "failed":
            self.failed = (int(event["exit_code"]), str(event["reason"]))
        elif not self._shows:
            return
        elif kind == "work":
            self._advance = self._open.enter_context(work(event["description"], event["total"]))
        elif kind == "advance" and self._advance:
            self._advance(event["steps"])
        elif kind == "done":
            self.close()
        elif kind == "log":
            _logger.log(event["level"], "%s", event["text"])
