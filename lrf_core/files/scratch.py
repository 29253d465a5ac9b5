"""Temporary files and folders: what a killed owner left is swept by the next run.

An owner holds a lock (`flock`) on what it makes, which ends with the process however that ends. Who
sweeps removes what is not locked and was made on this machine by this user. The name tells where it
was made: by host name and by boot, of which one has to be this machine's. Locks of other machines
need not be seen here.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrf_core.console import interrupts

# Starts the name of everything that is still being written beside its place.
WRITING = ".writing-"

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ATTEMPTS = 10

# What this process holds, for when it is left at once.
_held: set[Path] = set()


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder for temporary files, removed at the end; after a kill, by the next run.

    Args:
        purpose: a word for the name, e.g. "publish".
    """
    with _held_at(Path(tempfile.gettempdir()), f"lrf-{purpose}-", "", _new_folder) as folder:
        yield folder


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """While open, what libraries of this process write to temporary files lies in the folder."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def folder_beside(parent: Path) -> Iterator[Path]:
    """An empty folder in `parent`, which is made if need be, to be moved from. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    with _held_at(parent, WRITING, "", _new_folder) as folder:
        yield folder


@contextmanager
def file_beside(parent: Path, suffix: str = "") -> Iterator[Path]:
    """An empty file in `parent`, which is made if need be, to be moved away. Raises OSError."""
    with _held_at(parent, WRITING, suffix, _new_file) as file:
        yield file


@contextmanager
def _held_at(
    parent: Path, prefix: str, suffix: str, make: Callable[[Path, str, str], Path]
) -> Iterator[Path]:
    sweep(parent, prefix.partition("-")[0] + "-")
    path, handle = _made_and_locked(parent, f"{prefix}{_machine()}-", suffix, make)
    _held.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _held.discard(path)
        os.close(handle)


def _made_and_locked(
    parent: Path, prefix: str, suffix: str, make: Callable[[Path, str, str], Path]
) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        path = make(parent, prefix, suffix)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        # Of a file system without locks nothing is swept either, see `_swept`.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        # Somebody may have swept it between these two.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.lstat()):
                return path, handle
        os.close(handle)
    raise FileNotFoundError(f"{parent} does not keep what is made in it")


def _new_folder(parent: Path, prefix: str, suffix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def _new_file(parent: Path, prefix: str, suffix: str, attempts: int = _ATTEMPTS) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=parent)
    except (FileNotFoundError, FileExistsError):
        # A store removes folders that are empty, maybe just between our making and using one.
        if attempts == 1:
            raise
        return _new_file(parent, prefix, suffix, attempts - 1)
    os.close(handle)
    return Path(name)


@functools.lru_cache(maxsize=1024)
def sweep(parent: Path, prefix: str) -> None:
    """Remove what dead processes of this machine and user left in a folder; once per process.

    Args:
        prefix: `lrf-` or `.writing-`.
    """
    host, boot = _machine().split(".")
    own = re.compile(rf"{re.escape(prefix)}(.*-)?({host}\.\w+|\w+\.{boot})-.+")
    try:
        names = [entry.name for entry in os.scandir(parent) if own.fullmatch(entry.name)]
    except OSError:
        return  # there is nothing, or nothing to be seen
    for name in names:
        _sweep(parent / name)


def _sweep(path: Path) -> None:
    try:
        found = path.lstat()
        if found.st_uid != os.getuid() or not (
            stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
        ):
            return
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # somebody else has swept it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), path.lstat()):
            _remove(path)
    except OSError:
        return  # its owner lives, has just ended, or the file system has no locks
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_held() -> None:
    for path in tuple(_held):
        with suppress(OSError):
            _remove(path)


interrupts.before_leaving(_remove_held)


@functools.cache
def _machine() -> str:
    """The host by its name, and this boot of it: containers on one machine share the latter."""
    try:
        boot = _BOOT.read_text()
    except OSError:
        boot = ""
    return ".".join(
        hashlib.sha256(text.encode()).hexdigest()[:8] for text in (os.uname().nodename, boot)
    )
