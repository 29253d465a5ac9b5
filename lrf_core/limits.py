"""How much an input may unpack to, before it is refused as too large."""

from __future__ import annotations

import os

from lrf_core.errors import SpecError

_VARIABLE = "LRF_MAX_UNPACKED"
_DEFAULT = 16 << 30
_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def byte_limit() -> int:
    """Bytes that one input may unpack to: `LRF_MAX_UNPACKED`, 16 GiB without it.

    The value is a number of bytes, or one with K, M, G or T behind it (powers of 1024).

    Raises:
        SpecError: the variable holds anything else.
    """
    given = os.environ.get(_VARIABLE, "").strip()
    if not given:
        return _DEFAULT
    number, unit = (given[:-1], given[-1].upper()) if given[-1].isalpha() else (given, "")
    if not (number.isascii() and number.isdigit()) or (unit and unit not in _UNITS):
        raise SpecError(
            f"{_VARIABLE} is {given!r:.40}; give a number of bytes, or one with K, M, G or T "
            "behind it, as in 16G"
        )
    return int(number) << _UNITS.get(unit, 0)
