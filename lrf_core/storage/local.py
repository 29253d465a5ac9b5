"""A local directory as object storage: the embedded default, plain files for a user to open."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lrf_core.errors import StorageError
from lrf_core.files.scratch import WRITING
from lrf_core.storage.base import (
    DamagedObjectError,
    Entry,
    MissingObjectError,
    ObjectInfo,
    Stored,
    check_digest,
    check_key,
    check_prefix,
    sha256_of,
    staged,
)

# What opening a file says when there is no object: a missing file, a missing folder, a folder
# that is a file, or a folder in place of the file.
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

_LOCK = f"{WRITING}lock"


@dataclass(frozen=True)
class LocalStore:
    """Keys are paths below `root`. See `Store` for what each method promises.

    An object is written beside its place, synced and then moved there, so that a process that is
    killed or a machine that goes down leaves the old content or the new. What a killed process was
    writing has a name that is no object's, and is swept by the next that writes into the folder.

    Writers of several machines may share the directory over NFS of version 4: `replace` locks a
    file in `root`, which version 3 without its lock daemon refuses. Moving and linking are atomic
    there; a server that answers a lost request a second time may call a link of our own somebody
    else's, so that `put_if_absent` is False and the content there all the same.
    """

    root: Path

    def check(self) -> None:
        """Raise StorageError unless the directory can be made and written."""
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        try:
            with staged(self.root):
                pass
        except OSError as error:
            raise _unwritable(self.root, error) from None
        finally:
            _remove_empty(self.root, there)

    def get(self, key: str) -> bytes:
        path = self._path(key)
        try:
            return path.read_bytes()
        except _NO_OBJECT:
            raise MissingObjectError(f"nothing at {path}; check the key") from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        source = self._path(key)
        if not source.is_file():
            raise MissingObjectError(f"nothing at {source}; check the key")
        try:
            with staged(path.parent) as temporary:
                shutil.copyfile(source, temporary)
                check_digest(self.url(key), sha256_of(temporary).sha256 or "", sha256)
                temporary.replace(path)
        except OSError as error:
            raise StorageError(
                f"cannot copy {source} to {path}: {error.strerror or error}"
            ) from None

    def put(self, key: str, content: bytes) -> None:
        self._write(key, lambda temporary: temporary.write_bytes(content), self._move)

    def put_file(self, key: str, path: Path, sha256: str | None = None) -> ObjectInfo:
        given = sha256 or sha256_of(path).sha256

        def copy(temporary: Path) -> None:
            try:
                shutil.copyfile(path, temporary)
            except FileNotFoundError as error:
                raise StorageError(f"cannot read {path}: {error.strerror}") from None
            if sha256_of(temporary).sha256 != given:
                raise DamagedObjectError(
                    f"{path} is not what it was, or should be, before it was copied; something "
                    "else writes to it. Run it again."
                )

        self._write(key, copy, self._move)
        return ObjectInfo(path.stat().st_size, given)

    def put_if_absent(self, key: str, content: bytes) -> bool:
        return self._write(key, lambda temporary: temporary.write_bytes(content), _link)

    def read(self, key: str) -> Stored | None:
        try:
            content = self.get(key)
        except MissingObjectError:
            return None
        return Stored(content, hashlib.sha256(content).hexdigest())

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        if tag is None:
            return self.put_if_absent(key, content)

        def is_as_read() -> bool:
            stored = self.read(key)
            return stored is not None and stored.tag == tag

        def swap(temporary: Path, path: Path) -> bool:
            with self._locked():
                return is_as_read() and _move(temporary, path)

        # Looked at before as well, to make no folder for nothing.
        return is_as_read() and self._write(
            key, lambda temporary: temporary.write_bytes(content), swap
        )

    def copy(self, source: str, target: str) -> None:
        path = self._path(source)
        if not path.is_file():
            raise MissingObjectError(f"nothing at {path}; check the key")
        self._write(target, lambda temporary: shutil.copyfile(path, temporary), self._move)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for key in self.list(prefix):
            try:
                found = (self.root / key).stat()
            except _NO_OBJECT:
                continue  # removed meanwhile
            yield Entry(key, found.st_size, f"{found.st_ino} {found.st_mtime_ns}")

    def list(self, prefix: str = "") -> Iterator[str]:
        folder = self.root / check_prefix(prefix).rpartition("/")[0]
        for parent, _, names in os.walk(folder, onerror=_unlistable):
            below = Path(parent).relative_to(self.root)
            for name in names:
                key = (below / name).as_posix()
                if key.startswith(prefix) and not _unfinished(name):
                    yield key

    def folders(self) -> Iterator[str]:
        try:
            return (path.name for path in list(self.root.iterdir()) if path.is_dir())
        except OSError as error:
            _unlistable(error)
            return iter(())

    def delete(self, key: str) -> None:
        """Remove the file, and the folders above it that are empty then."""
        path = self._path(key)
        try:
            with self._locked_if_others_replace():
                path.unlink()
        except _NO_OBJECT:
            return
        except OSError as error:
            raise _unwritable(path, error) from None
        _remove_empty(path.parent, self.root)

    def stat(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except _NO_OBJECT:
            return None
        return replace(sha256_of(path), modified=modified) if path.is_file() else None

    def url(self, key: str = "") -> str:
        return (self._path(key) if key else self.root).as_uri()

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if _unfinished(path.name):
            raise StorageError(f"object key {key!r:.80} may not have a name starting {WRITING}")
        return path

    def _move(self, temporary: Path, path: Path) -> bool:
        with self._locked_if_others_replace():
            return _move(temporary, path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One holder at a time, over all processes; a process that dies lets go. Raises OSError."""
        # One file for all keys: one beside each would keep folders from being removed.
        with (self.root / _LOCK).open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _locked_if_others_replace(self) -> Iterator[None]:
        """Do not come between the look and the write of a `replace`; most stores have none."""
        if (self.root / _LOCK).exists():
            with self._locked():
                yield
        else:
            yield

    def _write(
        self, key: str, fill: Callable[[Path], object], place: Callable[[Path, Path], bool]
    ) -> bool:
        path = self._path(key)
        try:
            with staged(path.parent) as temporary:
                fill(temporary)
                _sync(temporary)
                placed = place(temporary, path)
                _sync(path.parent)
            return placed
        except OSError as error:
            raise _unwritable(path, error) from None


def _move(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _link(temporary: Path, path: Path) -> bool:
    # Unlike a rename, a link never takes the place of what another writer put there.
    try:
        os.link(temporary, path)
    except FileExistsError:
        if path.is_dir():
            raise
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_empty(folder: Path, stop: Path) -> None:
    for empty in (folder, *folder.parents):
        if empty == stop:
            return
        try:
            empty.rmdir()
        except OSError:
            return  # holds something else


def _unlistable(error: OSError) -> None:
    if not isinstance(error, _NO_OBJECT):
        raise StorageError(f"cannot list {error.filename}: {error.strerror or error}")


def _unfinished(name: str) -> bool:
    return name.startswith(WRITING)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"cannot write {path}: {error.strerror or error}; check that the store's directory "
        "exists or can be made, may be written, and has space"
    )
