"""The output of kfp.local: all of it into a file, the lines of our components to the person."""

from __future__ import annotations

import builtins
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from components.step import StepLine, read_line
from lrf_core.redaction import shown

_EXCEPTION = re.compile(r"(?:[\w.]+\.)?\w*(?:Error|Exception|Exit|Interrupt)\b(?:: .*)?")


class Relay(io.TextIOBase):
    """A stream in place of standard output.

    Attributes:
        failed: the first line with which a component said why it ends, if one did.
        last_exception: the last line of the last traceback, if there was one.
    """

    def __init__(self, log: TextIO, say: Callable[[str], None]) -> None:
        self._log = log
        self._say = say
        self._lock = threading.Lock()
        # Steps that run side by side write from threads of their own, a line in several pieces.
        self._unfinished: dict[int, str] = {}
        self.failed: StepLine | None = None
        self.last_exception = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            thread = threading.get_ident()
            *lines, rest = (self._unfinished.get(thread, "") + text).split("\n")
            self._unfinished[thread] = rest
            for line in lines:
                self._log.write(shown(line, lines=True) + "\n")
                self._read(line.strip())
        return len(text)

    def flush(self) -> None:
        self._log.flush()

    def _read(self, line: str) -> None:
        logged = read_line(line)
        if logged is None:
            if _EXCEPTION.fullmatch(line):
                self.last_exception = line
        elif logged.exit_code is not None:
            self.failed = self.failed or logged
        else:
            self._say(f"{logged.stage}: {logged.text}")


@contextmanager
def relayed(relay: Relay) -> Iterator[None]:
    """Let kfp.local write to the relay, and put back what it changes for every thread.

    It replaces `print` and the handlers of the root logger around each step. Two steps side by
    side put back what the other had set.
    """
    root = logging.getLogger()
    printed, level, handlers = builtins.print, root.level, root.handlers[:]
    # Where one step has taken away its handler while another still logs, this one is left.
    root.handlers[:] = [logging.StreamHandler(relay)]
    try:
        with redirect_stdout(relay):
            yield
    finally:
        builtins.print = printed
        root.setLevel(level)
        root.handlers[:] = handlers
