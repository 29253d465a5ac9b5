"""Progress with time left: stages report it here, the command line decides how it is shown."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar

import rich.console
import rich.progress

from lrf_core.redaction import shown as shown_text

_logger = logging.getLogger("lrf")
_Item = TypeVar("_Item")

# Called with the number of steps done since the last call.
Advance = Callable[[int], None]


class Display(Protocol):
    """Shows one piece of work of `total` steps while its context is open."""

    def __call__(self, description: str, total: int) -> AbstractContextManager[Advance]: ...


@contextmanager
def _silent(description: str, total: int) -> Iterator[Advance]:
    yield lambda steps: None


_display: ContextVar[Display] = ContextVar("display", default=_silent)


@contextmanager
def work(description: str, total: int) -> Iterator[Advance]:
    """Report work of `total` steps; call the yielded function with the steps just done."""
    with _display.get()(description, total) as advance:
        yield advance


def track(items: Collection[_Item], description: str) -> Iterator[_Item]:
    """Yield each item, reporting one step as each is finished."""
    with work(description, len(items)) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def shown() -> Iterator[None]:
    """Show progress on standard error: bars on a terminal, else a line every few seconds."""
    with shown_by(_bars if sys.stderr.isatty() else _lines):
        yield


@contextmanager
def shown_by(display: Display) -> Iterator[None]:
    """While open, work is reported to this display."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def _bars(description: str, total: int) -> Iterator[Advance]:
    columns = (
        rich.progress.TextColumn("{task.description:<28}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(shown_text(description), total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def _lines(
    description: str, total: int, every_s: float = 5.0, worth_saying_s: float = 1.0
) -> Iterator[Advance]:
    started = said = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done, said
        done += steps
        now = time.monotonic()
        if now - said >= every_s and 0 < done < total:
            said = now
            left = (now - started) / done * (total - done)
            _logger.info("%s: %d of %d, %.0f s left", description, done, total, left)

    yield advance
    took = time.monotonic() - started
    if took >= worth_saying_s:
        _logger.info("%s: %d of %d in %.1f s", description, done, total, took)
