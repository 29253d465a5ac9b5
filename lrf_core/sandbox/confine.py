"""What a process gives up before it reads a file of unknown origin; nothing gives it back.

In two steps, since imports do what reading may not: first files, then system calls and resources.
"""

from __future__ import annotations

import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lrf_core.sandbox.kernel import END_WITH_PARENT, control_process, drop_capabilities
from lrf_core.sandbox.landlock import restrict_files
from lrf_core.sandbox.seccomp import restrict_calls

FILES, CALLS = "files (Landlock)", "system calls (seccomp)"
WALLS = (FILES, CALLS)

_OPEN_FILES = 256
_PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn")
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod")


@dataclass(frozen=True)
class Limits:
    """What reading a model may use up.

    Attributes:
        memory: bytes of address space beyond what the process has when it begins.
        cpu: seconds of processor time, likewise.
        file: bytes of each file that it writes.
    """

    memory: int
    cpu: int
    file: int


def end_with(parent: int) -> None:
    """End this process when its parent, of that id, ends (Linux only)."""
    if sys.platform == "linux":
        control_process(END_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)


def confine_files(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Before imports: let this process open nothing but these, if the kernel has Landlock.

    Returns whether that is in force.
    """
    if sys.platform != "linux":
        return False
    try:
        return restrict_files(readable, writable)
    except OSError:
        return False


def confine_writing() -> bool:
    """From now on no file can be made or changed. Returns whether that is in force."""
    return sys.platform == "linux" and restrict_calls(platform.machine(), writing=False)


def confine_calls(limits: Limits) -> bool:
    """After imports: no network, no other process, no privileges of root, and so much of the rest.

    Returns whether system calls are restricted; limits are set on every platform.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, limits.file)
    used = resource.getrusage(resource.RUSAGE_SELF)
    # A second of grace, so that the signal says why.
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + limits.cpu, grace=1)
    if sys.platform != "linux":
        return False  # macOS does not enforce a limit of address space either
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.memory)
    machine = platform.machine()
    with suppress(OSError):  # a kernel or machine without them
        drop_capabilities(machine)
    return restrict_calls(machine, writing=True)


def watch(report: Callable[[str], NoReturn], writable: Iterable[Path]) -> None:
    """Have Python say what reading is about to do and may not; the kernel says no more than no.

    Args:
        report: is given what it was, for "it tried to ..."; does not return.
        writable: folders in which files may be changed.
    """
    allowed = tuple(f"{folder}{os.sep}" for folder in writable)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if attempt := _attempt(event, arguments, allowed):
            report(attempt)

    sys.addaudithook(hook)


def _attempt(event: str, arguments: tuple[Any, ...], allowed: tuple[str, ...]) -> str:
    if event.startswith("socket."):
        return "use the network"
    if event in _PROGRAMS:
        return f"start a program: {arguments[0]!r:.100}"
    if event in ("os.fork", "os.forkpty"):
        return "start another process"
    if event in ("os.kill", "os.killpg", "signal.pthread_kill"):
        return "send a signal to a process"
    writes = event in _CHANGES
    if event == "open":
        flags = arguments[2]
        writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if writes and isinstance(arguments[0], (str, bytes)):
        # Of a relative path, the folder may be one that is open, which events do not name.
        path = os.path.normpath(os.fsdecode(arguments[0]))
        if Path(path).is_absolute() and not path.startswith(allowed):
            return f"change the file {path!r:.200}"
    return ""


def _limit(what: int, most: int, grace: int = 0) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
        grace = min(grace, hard - most)
    with suppress(OSError, ValueError):  # not on this platform
        resource.setrlimit(what, (most, most + grace))
