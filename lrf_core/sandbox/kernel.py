"""System calls of Linux that Python does not offer, through the C library."""

from __future__ import annotations

import ctypes
import os
from typing import Any

NO_NEW_PRIVILEGES, END_WITH_PARENT = 38, 1

_CAPABILITIES_V3 = 0x20080522
_CAN_READ_ALL = 1 << 2  # CAP_DAC_READ_SEARCH
_CAPSET = {"x86_64": 126, "aarch64": 91}


def system_call(number: int, *arguments: Any) -> int:
    """Call the kernel.

    Args:
        arguments: integers, bytes (by address) or ctypes structures by reference.

    Raises:
        OSError: the kernel refuses, or the C library cannot call it so.
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(library.syscall(ctypes.c_long(number), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def control_process(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if library.prctl(option, ctypes.c_ulong(value), zero, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def drop_capabilities(machine: str) -> None:
    """Give up what root may do beyond its own files, except reading. Raises OSError."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Sets(ctypes.Structure):
        _fields_ = (
            ("effective", ctypes.c_uint32),
            ("permitted", ctypes.c_uint32),
            ("inheritable", ctypes.c_uint32),
        )

    if machine not in _CAPSET:
        raise OSError(f"capset is not known for {machine}")
    number, header = _CAPSET[machine], Header(_CAPABILITIES_V3, 0)
    for left in (_CAN_READ_ALL, 0):  # a container may have been denied even that
        try:
            system_call(
                number,
                ctypes.byref(header),
                ctypes.byref((Sets * 2)(Sets(left, left, 0), Sets(0, 0, 0))),
            )
        except PermissionError:
            if not left:
                raise
        else:
            return
