"""SIGINT and SIGTERM end a command in one line, at any moment.

Imports next to nothing: its handlers have to be there before anything that takes time is imported.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ClassVar, NoReturn

MESSAGE = "lrf: interrupted; run the same command again to go on\n"

# Whoever cleans up does so within this time; then its process is killed.
_GRACE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
# A thread may be just about to start one, so that one look is not enough.
_QUIET_LOOKS = 3
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; what is open cleans up and lets it through."""


class _State:
    """Of this process, as signals are.

    Attributes:
        stderr: standard error as it was at first: it may be redirected when a signal comes.
        raises: whether a signal raises Interrupted, rather than end the process at once.
        received: signals, in order.
        cleaners: to be called before the process ends.
        asked: children that were told to end.
    """

    stderr = 2
    raises = False
    received: ClassVar[list[int]] = []
    cleaners: ClassVar[list[Callable[[], None]]] = []
    asked: ClassVar[set[int]] = set()


def install() -> None:
    """Take both signals from now on: outside of `raised`, one ends the process at once.

    A signal that is ignored stays ignored, as `nohup` and shells want it for what runs behind. In
    any thread but the first nothing is done.
    """
    if _State.stderr == 2:
        try:
            _State.stderr = os.dup(2)
        except OSError:  # it is closed
            _State.stderr = os.open(os.devnull, os.O_WRONLY)
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            try:
                signal.signal(number, _take)
            except ValueError:
                return


@contextmanager
def handled() -> Iterator[None]:
    """As `install`, with the handlers from before put back at the end."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    install()
    try:
        yield
    finally:
        for number, handler in before.items():
            try:
                signal.signal(number, handler)
            except (TypeError, ValueError):  # not Python's, or not this thread's to set
                continue


@contextmanager
def raised() -> Iterator[None]:
    """While open, a signal raises Interrupted, so that what is open can clean up."""
    before, _State.raises = _State.raises, True
    try:
        yield
    finally:
        _State.raises = before


@contextmanager
def at_once() -> Iterator[None]:
    """While open, a signal ends the process at once: around imports of C++ libraries, which make
    other errors of an exception or lose it."""
    before, _State.raises = _State.raises, False
    try:
        yield
    finally:
        _State.raises = before


def adopt_orphans() -> None:
    """From now on, be the parent of what a child leaves behind when it ends, on Linux.

    A shell that is told to end between two looks at it would leave behind what it has just started.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def received() -> int | None:
    """The exit code by the first signal; None if there was none."""
    return 128 + _State.received[0] if _State.received else None


def before_leaving(clean: Callable[[], None]) -> None:
    """Call this before the process ends by a signal at once."""
    _State.cleaners.append(clean)


def leave() -> NoReturn:
    """End the process by the signal that was received, once what was open has cleaned up.

    Children are ended, temporary files removed, and one line is written to standard error. Threads
    that still work are not waited for.
    """
    # Libraries have temporary files, too.
    _leave(atexit._run_exitfuncs)


def _leave(*more: Callable[[], None]) -> NoReturn:
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    _end_children()
    for clean in (*_State.cleaners, *more):
        clean()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, RuntimeError, ValueError):
            continue  # closed, or a signal came while it was being written
    with suppress(OSError):  # nobody reads it any more
        os.write(_State.stderr, MESSAGE.encode())
    os._exit(received() or 128 + signal.SIGINT)


def _take(number: int, frame: FrameType | None) -> None:
    _State.received.append(number)
    # Steps and workers first: whoever waits for one would wait until it is done.
    _ask_children()
    # The second ends what cleans up after the first; the third waits for nothing.
    if _State.raises and len(_State.received) < 3:
        raise Interrupted
    _leave()


def _end_children() -> None:
    if processes := sys.modules.get("subprocess"):
        # A thread that waits for a child must not start the next.
        processes.Popen = _start_nothing  # type: ignore[attr-defined]
    until = time.monotonic() + _GRACE_S
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < until:
        quiet = 0 if _ask_children() else quiet + 1
        time.sleep(0.02)
    for pid in _children():
        _signal(pid, signal.SIGKILL)


def _start_nothing(*arguments: object, **options: object) -> NoReturn:
    raise Interrupted


def _ask_children() -> bool:
    """Tell those to end that were not told yet: a thread may start the next; whether there are any.

    A second signal would end their cleaning up.
    """
    found = set(_children())
    for pid in found - _State.asked:
        _signal(pid, signal.SIGTERM)
    _State.asked = found
    return bool(found)


def _signal(pid: int, number: int) -> None:
    with suppress(OSError):  # it has ended
        os.kill(pid, number)


def _children() -> list[int]:
    """All processes below this one that run; none if there is no /proc."""
    parents: dict[int, list[int]] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != b"Z":
            parents.setdefault(int(parent), []).append(pid)
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
