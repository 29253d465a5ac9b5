"""How text reaches a user: standard output and error, tables, and tracebacks, all as `shown`."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import TextIO

import rich.console
import rich.text

from lrf_core.redaction import Filter, shown

# Wide enough for the tables where standard output is a file or a pipe.
_PLAIN_WIDTH = 100


def say(line: str) -> None:
    """Write a line to standard error."""
    _write(sys.stderr, line)


def echo(line: str) -> None:
    """Write a line to standard output."""
    _write(sys.stdout, line)


def print_table(*content: rich.console.RenderableType) -> None:
    """Print tables, or strings, which are no markup."""
    console().print(
        *(rich.text.Text(shown(each)) if isinstance(each, str) else each for each in content),
        soft_wrap=all(isinstance(each, str) for each in content),
    )


def console() -> rich.console.Console:
    """Standard output for tables; those of `lrf_core.report.tables` hold text as `shown`."""
    found = rich.console.Console(highlight=False, markup=False, emoji=False)
    if found.is_terminal:
        return found
    return rich.console.Console(highlight=False, markup=False, emoji=False, width=_PLAIN_WIDTH)


def protect() -> None:
    """Let nothing that this process prints on its own hold a secret, or steer a terminal.

    Covers what the root logger's handlers write, warnings, and the tracebacks of all threads. What
    the encoding of standard output cannot express is escaped.
    """
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, Filter) for each in handler.filters):
            handler.addFilter(Filter())
    for output in (sys.stdout, sys.stderr):
        reconfigure = getattr(output, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
    sys.excepthook = _print_exception
    threading.excepthook = lambda failed: _print_exception(
        failed.exc_type, failed.exc_value, failed.exc_traceback
    )
    warnings.showwarning = _print_warning


def give_up_output() -> None:
    """Standard output is closed: let nothing more be written there, not at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Of what was closed at the start (`>&-`), the next file would take the place, and its text."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w"))


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{shown(line)}\n")


def _print_exception(
    kind: type[BaseException], error: BaseException | None, where: TracebackType | None
) -> None:
    lines = "".join(traceback.format_exception(kind, error, where))
    sys.stderr.write(shown(lines, lines=True))


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(shown(text, lines=True))
