"""Landlock: which files this process may open, whoever it runs as (Linux 5.13 and later).

Source: https://docs.kernel.org/userspace-api/landlock.html and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from lrf_core.sandbox.kernel import NO_NEW_PRIVILEGES, control_process, system_call

# The same on every architecture.
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION, _BELOW_PATH = 1, 1

_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_REMOVE, _MAKE_FOLDER, _MAKE_FILE, _MAKE_LINK = 3 << 4, 1 << 7, 1 << 8, 1 << 12
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _READ_FILE | _READ_FOLDER
_WRITE = _WRITE_FILE | _REMOVE | _MAKE_FOLDER | _MAKE_FILE | _MAKE_LINK | _MOVE | _TRUNCATE
# What each version of the interface can restrict: rights to files are numbered from 0.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP, _TCP_SINCE = 0b11, 4
_SIGNALS_AND_ABSTRACT_SOCKETS, _SCOPES_SINCE = 0b11, 6


def landlock_version() -> int:
    """Version of the kernel's interface; 0 when there is none, or this process may not use it."""
    try:
        return system_call(_CREATE, 0, 0, _VERSION)
    except (OSError, AttributeError):
        return 0


def restrict_files(readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Let this thread, and those that it starts, open nothing but these; for good.

    Programs can no longer be started, and with newer kernels TCP ports not be used, signals not be
    sent outside, and abstract Unix sockets not be reached.

    Args:
        readable: files, and folders with all that is in them; what does not exist is left out.
        writable: the same; these are readable as well.

    Returns whether Landlock is in force; False when the kernel has none.
    """
    version = landlock_version()
    if not version:
        return False
    handled = (1 << _FILE_RIGHTS.get(version, _FILE_RIGHTS[5])) - 1
    attributes = struct.pack(
        "=QQQ",
        handled,
        _TCP if version >= _TCP_SINCE else 0,
        _SIGNALS_AND_ABSTRACT_SOCKETS if version >= _SCOPES_SINCE else 0,
    )
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _TCP_SINCE else 8
    rules = system_call(_CREATE, attributes, size, 0)
    try:
        for path in readable:
            _allow(rules, path, _READ & handled)
        for path in writable:
            _allow(rules, path, (_READ | _WRITE) & handled)
        control_process(NO_NEW_PRIVILEGES, 1)
        system_call(_RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return True


def _allow(rules: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not visible: nothing to allow
    try:
        allowed = rights if path.is_dir() else rights & _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, opened))
        system_call(_ADD_RULE, rules, _BELOW_PATH, rule, 0)
    finally:
        os.close(opened)
