"""Unpack `.tar`, `.tar.gz`, `.tgz` and `.zip` archives from anybody, without doing harm.

Nothing is written outside the folder, no link or device is made, and what comes out is counted
while it comes: the sizes that an archive states are what whoever made it wanted them to be.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lrf_core.errors import DataError
from lrf_core.files.limits import FILES, UNPACK_GIB, check_limit, limit, unpack_limit
from lrf_core.storage.base import sha256_of
from lrf_core.storage.cache import cached_tree

_TAR_MAGIC_OFFSET = 257
_MOST_RATIO = 200
# Small archives may well hold a lot of the same.
_ALWAYS_ALLOWED = 64 << 20
# Long names, and what else comes before a file; Python's tarfile holds them in memory, and needs
# a time that grows with the square of their length.
_LONGEST_HEADER = 8 << 10
_MOST_SETTINGS = 100
# Of zip: bytes for one file in the directory at the end.
_ENTRY_BYTES = 128
_LONGEST_PART, _LONGEST_NAME, _DEEPEST = 255, 1024, 64
_CHUNK_BYTES = 1 << 20
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    ValueError,  # of numbers in headers
    RecursionError,  # of headers of headers
    NotImplementedError,  # of zipfile
)
# What macOS adds beside the files.
_LEFT_OUT = "__MACOSX"


def is_archive(path: Path) -> bool:
    """Whether a file is one that `unpacked` takes, by its name or by its content."""
    by_name = path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".zip"))
    return by_name or zipfile.is_zipfile(path) or _is_packed(path) or _is_tar(path)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_TAR_MAGIC_OFFSET)
        return file.read(5) == b"ustar"


def unpacked(path: Path, source: str) -> Path:
    """The folder with the content of an archive, unpacked once and kept in the cache.

    A single folder around everything is left out.

    Args:
        source: what the user calls the archive.

    Raises:
        DataError: the archive is damaged, holds anything but files and folders of its own, or
            unpacks to more than it may.
        StorageError: the cache cannot be written.
    """
    info = sha256_of(path)
    content = cached_tree(
        f"archive-{info.sha256}", lambda folder: _unpack(path, source, folder, info.size)
    )
    inside = list(content.iterdir())
    return inside[0] if len(inside) == 1 and _is_wrapper(inside[0]) else content


def _is_wrapper(folder: Path) -> bool:
    # A lone train/ is one that its test/ is missing from, which is for others to say.
    if not folder.is_dir() or folder.name == "train":
        return False
    return any(below.is_dir() for below in folder.iterdir())


@dataclass
class _Allowance:
    """What may still be unpacked, in bytes and files; `why` says where the bytes' limit is from."""

    source: str
    bytes_left: int
    why: str
    files: int = 0

    @classmethod
    def of(cls, source: str, size: int) -> _Allowance:
        most = unpack_limit()
        by_ratio = max(_MOST_RATIO * size, _ALWAYS_ALLOWED)
        if by_ratio < most:
            return cls(source, by_ratio, f"{_MOST_RATIO} times its own size, as a zip bomb does")
        return cls(source, most, f"{most / 2**30:g} GiB, the limit in {UNPACK_GIB}")

    def take(self, count: int) -> None:
        self.check(count)
        self.bytes_left -= count

    def check(self, count: int) -> None:
        if count > self.bytes_left:
            raise DataError(f"{self.source} unpacks to more than {self.why}; it is not used")

    def take_file(self) -> None:
        self.files += 1
        check_limit(FILES, self.files, f"{self.source}: number of files is at least", DataError)


class _Counted:
    """A stream of what was decompressed, which ends when there is too much of it."""

    def __init__(self, stream: gzip.GzipFile | IO[bytes], allowance: _Allowance) -> None:
        self._stream, self._allowance = stream, allowance

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, _CHUNK_BYTES) if size >= 0 else _CHUNK_BYTES)
        self._allowance.take(len(content))
        return content


class _Member(tarfile.TarInfo):
    """What tarfile holds in memory as a whole may not be too long."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        plain = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("it holds a file with holes")
        if self.type not in plain and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        if len(archive.pax_headers) > _MOST_SETTINGS:
            raise tarfile.ReadError("it has too many headers")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("it holds a file with holes")


def _unpack(path: Path, source: str, folder: Path, size: int) -> None:
    allowance = _Allowance.of(source, size)
    members = _in_zip if zipfile.is_zipfile(path) else _in_tar
    try:
        for name, content in members(path, source, allowance):
            target = folder / _safe(name, source)
            allowance.take_file()
            if content is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                _write(target, content, allowance, counted=members is _in_tar)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{source} is no readable archive: {reason}; make it again") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{source} holds two files of one name; it is not used") from None


Members = Iterator[tuple[str, IO[bytes] | None]]


def _in_tar(path: Path, source: str, allowance: _Allowance) -> Members:
    """Name and content of each file, one after the other; no content for a folder."""
    with gzip.open(path) if _is_packed(path) else path.open("rb") as stream:
        counted = _Counted(stream, allowance)
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_Member) as archive:  # type: ignore[call-overload]
            while member := archive.next():
                archive.members.clear()  # tarfile keeps all of them
                if member.isdir():
                    yield member.name, None
                elif member.isreg() and not member.issparse():
                    yield member.name, archive.extractfile(member)
                else:
                    raise _refused(source, member.name, "is a link, a device or a file with holes")


def _in_zip(path: Path, source: str, allowance: _Allowance) -> Members:
    """As `_in_tar`."""
    longest, advice = max(_ENTRY_BYTES * limit(FILES), 1 << 20), f" (raise {FILES} for more)"
    with ZipSource(path, longest, advice) as file, zipfile.ZipFile(file) as archive:
        check_limit(FILES, len(archive.infolist()), f"{source}: number of files is", DataError)
        # Python's zipfile never gives more of a member than its stated size.
        allowance.check(sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(source, member.filename, "is a link or a device")
            if not is_usual(member):
                why = "is encrypted or compressed in an unusual way (make it again with deflate)"
                raise _refused(source, member.filename, why)
            if member.filename.endswith("/"):
                yield member.filename, None
            else:
                with archive.open(member) as content:
                    yield member.filename, content


def _safe(name: str, source: str) -> Path:
    """The name as a path below a folder. Raises DataError where it leads elsewhere."""
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    unsafe = any(part in ("", "..") for part in parts)
    if unsafe or name.startswith("/") or "\\" in name or not name.isprintable():
        raise _refused(source, name, "has a name that leads elsewhere")
    longest = max((len(part.encode()) for part in parts), default=0)
    if longest > _LONGEST_PART or len(name.encode()) > _LONGEST_NAME or len(parts) > _DEEPEST:
        raise _refused(source, name, "has a name that is too long")
    return Path(*parts)


def _write(target: Path, content: IO[bytes], allowance: _Allowance, counted: bool) -> None:
    if target.parts and _LEFT_OUT in target.parts:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            if not counted:
                allowance.take(len(chunk))
            file.write(chunk)


def _refused(source: str, name: str, why: str) -> DataError:
    return DataError(f"{source}: {name!r:.120} {why}; the archive is not used")


# What np.savez and common programs write; others hold whole dictionaries of gigabytes in memory.
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource(io.BufferedReader):
    """A file that zipfile reads from: in no piece longer than the directory at its end may be.

    zipfile reads the directory in one piece, and holds some 700 bytes for each entry of it, which
    takes 46 bytes or more in the file.

    Args:
        advice: how to allow more, for the message.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: the directory is too long.
    """

    def __init__(self, path: Path, longest: int, advice: str = "") -> None:
        super().__init__(io.FileIO(path))
        self._longest, self._advice = longest, advice

    def read(self, size: int | None = -1, /) -> bytes:
        most = self._longest + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise zipfile.BadZipFile(
                f"its directory has more than {self._longest:,} bytes{self._advice}"
            )
        return content


def is_usual(member: zipfile.ZipInfo) -> bool:
    """Whether a member is neither encrypted nor compressed in an unusual way."""
    return not member.flag_bits & 1 and member.compress_type in KINDS
