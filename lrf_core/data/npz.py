"""Arrays of an `.npz` file, whose types and shapes are known before any of them is read."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from lrf_core.console.progress import track
from lrf_core.data.archive import ZipSource, is_usual
from lrf_core.data.split import Array
from lrf_core.errors import DataError
from lrf_core.files.limits import check_memory

# An array that is not compressed is used from the file if it is larger; it costs no memory.
MAPPED_BYTES = 256 << 20
_SUFFIX = ".npy"
# NumPy reads a header whole before it looks at how long it is.
_LONGEST_HEADER = 10_000
_MOST_AXES = 32
# No stream of deflate gives more.
_DEFLATE_RATIO = 1032
_LONGEST_DIRECTORY = 4 << 20
_CHUNK_BYTES = 1 << 20
# In the header before a member: the lengths of its name and of its extra field, which end it.
_LENGTHS_OFFSET = 26


def is_npz(path: Path) -> bool:
    """Whether a file is named or built like an `.npz` file: a zip of arrays."""
    if path.suffix == ".npz":
        return True
    if not zipfile.is_zipfile(path):
        return False
    try:
        with ZipSource(path, _LONGEST_DIRECTORY) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    return bool(names) and all(name.endswith(_SUFFIX) for name in names)


@dataclass(frozen=True)
class Stored:
    """An array as it lies in the file.

    Attributes:
        start: bytes of its header.
    """

    name: str
    member: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_mapped(self) -> bool:
        """Whether the values are used from the file rather than read into memory."""
        return self.member.compress_type == zipfile.ZIP_STORED and self.size > MAPPED_BYTES

    def form(self) -> Array:
        """An array of this type and shape that takes no memory; its values mean nothing."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


class Archive:
    """An open `.npz` file. Every method raises DataError."""

    def __init__(self, path: Path, file: ZipSource) -> None:
        self._path, self._file = path, file
        with _readable(path):
            self._zip = zipfile.ZipFile(file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            name = member.filename.removesuffix(_SUFFIX)
            if name in self._members:
                raise DataError(f"{path} holds '{name}' twice; save it again with np.savez(...)")
            self._members[name] = member

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def stored(self, name: str) -> Stored:
        """Type and shape of an array, after its sizes in the file were compared with them."""
        member = self._members[name]
        where = f"{self._path}: '{name}' in it"
        if not is_usual(member):
            raise DataError(
                f"{where} is encrypted or compressed in an unusual way; save it with np.savez(...)"
            )
        with _readable(self._path), self._zip.open(member) as content:
            first = content.read(npy.MAGIC_LEN + 4 + _LONGEST_HEADER)
        if not (member.filename.endswith(_SUFFIX) and first.startswith(npy.MAGIC_PREFIX)):
            raise DataError(f"{where} is no array; save arrays with np.savez(...)")
        shape, fortran_order, dtype, start = _header(first, where)
        found = Stored(name, member, dtype, shape, fortran_order, start)
        if start + found.size != member.file_size:
            raise DataError(
                f"{where} has a header of {found.size:,} bytes of values, but "
                f"{member.file_size - start:,} in the file; save it again with np.savez(...)"
            )
        packed = member.compress_type == zipfile.ZIP_DEFLATED
        if member.file_size > (_DEFLATE_RATIO if packed else 1) * member.compress_size:
            raise DataError(f"{where} has fewer bytes than the file says; save it again")
        return found

    def read(self, arrays: Sequence[Stored]) -> dict[str, Array]:
        """The values, by name; there must be memory for all that is not used from the file."""
        needed = sum(each.size for each in arrays if not each.is_mapped)
        check_memory(needed, f"{self._path} unpacks to", DataError)
        with _readable(self._path):
            return {each.name: self._values(each) for each in track(arrays, "Reading samples")}

    def _values(self, stored: Stored) -> Array:
        if stored.is_mapped:
            return self._mapped(stored)
        with self._zip.open(stored.member) as content:
            return npy.read_array(content, allow_pickle=False)

    def _mapped(self, stored: Stored) -> Array:
        with self._zip.open(stored.member) as content:
            while content.read(_CHUNK_BYTES):
                pass  # compares the checksum at the end
        self._file.seek(stored.member.header_offset + _LENGTHS_OFFSET)
        lengths = struct.unpack("<HH", self._file.read(4))
        offset = self._file.tell() + sum(lengths) + stored.start
        mapped = np.memmap(
            self._path,
            stored.dtype,
            mode="r",
            offset=offset,
            shape=stored.shape,
            order="F" if stored.fortran_order else "C",
        )
        return mapped.view(np.ndarray)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an `.npz` file. Raises DataError."""
    with _readable(path):
        file = ZipSource(path, _LONGEST_DIRECTORY)
    with file:
        if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise DataError(f"{path} is a single array; save x and y with np.savez(...)")
        yield Archive(path, file)


def _header(first: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type and length of a header; its start is enough."""
    stream = io.BytesIO(first)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran_order, dtype = read(stream, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # noqa: BLE001 - whatever NumPy and Python's parser raise on a text
        reason = " ".join(str(error).split())[:120]
        raise DataError(
            f"{where} has a damaged header ({reason}); save it with np.savez(...)"
        ) from None
    if dtype.hasobject:
        raise DataError(
            f"{where} holds Python objects, which are not read; save plain number arrays"
        )
    if dtype.kind not in "biufcSU" or dtype.subdtype or not dtype.itemsize:
        raise DataError(f"{where} holds {dtype} values; save plain number arrays")
    too_many = len(shape) > _MOST_AXES
    if too_many or any(length < 0 for length in shape) or math.prod(filter(None, shape)) >= 2**62:
        raise DataError(f"{where} has shape {shape!s:.120}; save it again with np.savez(...)")
    return shape, fortran_order, dtype, stream.tell()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read {path} as an .npz file: {reason}") from None
