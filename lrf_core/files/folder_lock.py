"""One run at a time in an output folder, over all processes; a process that dies lets go."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrf_core.errors import ArtifactError, BusyError

LOCK_FILE = ".lock"
# Of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_logger = logging.getLogger("lrf")


@contextmanager
def lock_folder(folder: Path, part: str = "") -> Iterator[None]:
    """While open, no other run writes to this folder.

    Args:
        part: runs of different parts may write side by side; empty for a run of the whole.

    Raises:
        BusyError: another run holds the folder, or the same part of it.
        ArtifactError: the folder cannot be made or written.
    """
    if not part:
        with _held(folder, LOCK_FILE, fcntl.LOCK_EX):
            yield
        return
    with (
        _held(folder, LOCK_FILE, fcntl.LOCK_SH),
        _held(folder, f"{LOCK_FILE}-{part}", fcntl.LOCK_EX),
    ):
        yield


@contextmanager
def _held(folder: Path, name: str, kind: int) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file stays: another process may wait for it while it is removed.
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder}: {error.strerror or error}; make room, or give a folder that "
            "may be written with --out"
        ) from None
    try:
        _lock(handle, kind, folder)
        if kind == fcntl.LOCK_EX:
            _note_holder(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, kind: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
        which = f" (process {holder})" if holder.isdecimal() else ""
        raise BusyError(
            f"another run{which} is writing to {folder}; wait until it ends, or give another "
            "folder with --out"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ArtifactError(f"cannot lock {folder}: {error.strerror or error}") from None
        _logger.warning("%s cannot be locked here; start no second run in it", folder)


def _note_holder(handle: int) -> None:
    """Write which process holds the lock: advice to a reader, which a full disk may do without."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        _logger.debug("the holder of the lock is not noted: %s", error)
