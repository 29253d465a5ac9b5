"""Ceilings on what is read from files, each set by an environment variable; and strict JSON.

Sizes are known before anything is allocated: a file that would take more than its ceiling, or more
memory than is free, is refused with its size, the ceiling, and how to raise it.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import pydantic_core

from lrf_core.errors import BadInputError, SpecError

# Bytes that one file may take in memory, however small it is itself.
UNPACKED = "LRF_MAX_UNPACKED"
# GiB on disk that one archive of images may unpack to.
UNPACK_GIB = "LRF_UNPACK_GIB"
# Bytes of a YAML file, and of a JSON file.
SPEC = "LRF_MAX_SPEC"
DOCUMENT = "LRF_MAX_DOCUMENT"
# Pixels of one image.
PIXELS = "LRF_MAX_PIXELS"
# Files in one archive.
FILES = "LRF_MAX_FILES"
# Rows of a design space.
CANDIDATES = "LRF_MAX_CANDIDATES"

_DEFAULTS = {
    UNPACKED: 16 << 30,
    SPEC: 1 << 20,
    DOCUMENT: 64 << 20,
    PIXELS: 2**30 // 12,  # Pillow's own: a quarter of a gigabyte in colour
    FILES: 2_000_000,
    CANDIDATES: 4_000_000,
}
_UNPACK_GIB = 100.0
_NUMBER = re.compile(r"([0-9]{1,18})([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def byte_limit() -> int:
    """Bytes that one file may take in memory: `LRF_MAX_UNPACKED`, 16 GiB by default.

    Raises:
        SpecError: the variable is no number of bytes.
    """
    return limit(UNPACKED)


def limit(name: str) -> int:
    """A ceiling of this module: its variable, else its default.

    Raises:
        SpecError: the variable is no positive whole number, alone or with K, M, G or T (binary).
    """
    given = os.environ.get(name)
    if not given:
        return _DEFAULTS[name]
    found = _NUMBER.fullmatch(given.strip().upper())
    value = int(found[1]) * _UNITS[found[2]] if found else 0
    if not value:
        raise SpecError(
            f"{name} is {given!r:.40}; write a whole number above 0, alone or with K, M, G or T "
            "(such as 500M or 32G)"
        )
    return value


def unpack_limit() -> int:
    """Bytes on disk that one archive of images may unpack to: `LRF_UNPACK_GIB`, 100 by default.

    Raises:
        SpecError: the variable is no number of GiB.
    """
    given = os.environ.get(UNPACK_GIB)
    try:
        gib = float(given) if given else _UNPACK_GIB
    except ValueError:
        gib = math.nan
    if not 0 < gib < 1e6:
        raise SpecError(
            f"{UNPACK_GIB} is {given!r:.40}; write how many GiB an archive may unpack to"
        )
    return int(gib * 2**30)


def check_limit(name: str, found: int, what: str, error: type[BadInputError]) -> None:
    """Raise `error` if more was found than a ceiling allows.

    Args:
        what: subject and verb of the message, up to the number: "x.npz unpacks to".
    """
    most = limit(name)
    if found > most:
        unit = " bytes" if name in (UNPACKED, SPEC, DOCUMENT) else ""
        raise error(
            f"{what} {found:,}{unit}, the limit is {most:,}; if the file is sound, set {name} to "
            "more"
        )


def check_memory(size: int, what: str, error: type[BadInputError]) -> None:
    """Raise `error` if so many bytes are over `LRF_MAX_UNPACKED`, or not free on this machine.

    Args:
        what: as for `check_limit`.
    """
    check_limit(UNPACKED, size, what, error)
    free = free_memory()
    if free is not None and size > free:
        raise error(
            f"{what} {size:,} bytes, but only {free:,} bytes of memory are free; use a machine "
            "with more memory, or less data"
        )


def free_memory() -> int | None:
    """Bytes that may still be taken, of the machine and of its control group; None if unknown."""
    known = [free for free in (_of_machine(), *map(_of_group, _GROUPS)) if free is not None]
    return min(known, default=None)


def read_document(path: Path, name: str, what: str, error: type[BadInputError]) -> bytes:
    """The content of a YAML or JSON file, if it is a plain file within a ceiling.

    Args:
        name: of the ceiling.
        what: the file, for the message.

    Raises:
        OSError: the file cannot be read.
        BadInputError: the `error` given: it is no plain file, or too long.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not path.is_dir():
        raise error(f"cannot read {what}: it is a device or a pipe; give a plain file")
    with path.open("rb") as file:
        check_limit(name, found.st_size, f"{what} has", error)
        content = file.read(found.st_size + 1)
    check_limit(name, len(content), f"{what} has", error)
    return content


# Limit, use, and statistics of a control group as a container sees its own: version 2, then 1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_GROUP_FOLDER = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/meminfo")


def _of_machine() -> int | None:
    available = _entry(_MACHINE, "MemAvailable:")
    return None if available is None else available << 10


def _of_group(files: tuple[str, str, str]) -> int | None:
    most, used = (_number(_GROUP_FOLDER / name) for name in files[:2])
    if most is None or used is None:
        return None
    # Pages of files are given back when memory is needed.
    return max(most - used + (_entry(_GROUP_FOLDER / files[2], "inactive_file") or 0), 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None  # no such group, or "max"


def _entry(file: Path, name: str) -> int | None:
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if row and row[0] == name), None)


def parse_json(content: bytes) -> Any:
    """The content of a JSON document.

    Raises:
        ValueError: it is no JSON in UTF-8, has a key twice, a number that is not finite, or is
            nested too deep.
    """
    pydantic_core.from_json(content, allow_inf_nan=False)  # looks at the depth as well
    return json.loads(content, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.60} is there twice")
        found[key] = value
    return found
