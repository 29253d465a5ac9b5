"""The small interface to object storage that the rest of lrf uses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from lrf_core.errors import StorageError
from lrf_core.files.scratch import file_beside

# S3 allows no longer keys.
MAX_KEY_BYTES = 1024


class MissingObjectError(StorageError):
    """The store answers, and has nothing under this key."""


class DamagedObjectError(StorageError):
    """The stored bytes are not the ones that were written."""


@dataclass(frozen=True)
class ObjectInfo:
    """Size in bytes and sha256 (hex); None if another program wrote the object without one.

    Attributes:
        tag: changes with the content, where the store has such a thing.
        modified: when it was written, by the clock of the store.

    Two are equal whatever these two are.
    """

    size: int
    sha256: str | None
    tag: str | None = field(default=None, compare=False)
    modified: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it.

    Attributes:
        size: in bytes.
        mark: changes with the content; not the tag that `Store.replace` compares.
    """

    key: str
    size: int
    mark: str


@dataclass(frozen=True)
class Stored:
    """Content, and a tag that changes with every write: what `Store.replace` compares."""

    content: bytes
    tag: str


class Store(Protocol):
    """Objects under keys such as "resnet20/v-1f3a/model.keras".

    A reader never sees half an object: each write is whole or not there. Every method raises
    StorageError when the store cannot be reached, refuses the credentials, or cannot be read or
    written, and when the key is not one that `check_key` allows.
    """

    def check(self) -> None:
        """Raise StorageError unless the store is there and can be used; nothing stays behind."""

    def get(self, key: str) -> bytes:
        """The content. Raises MissingObjectError; DamagedObjectError if its sha256 is known."""

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Write the content to a file, whole or not at all.

        Args:
            sha256: the digest (hex) that the content must have, where the caller knows it.

        Raises:
            MissingObjectError: nothing under this key.
            DamagedObjectError: the content has another digest than it must have.
        """

    def put(self, key: str, content: bytes) -> None:
        """Write, in place of what may be there."""

    def put_file(self, key: str, path: Path, sha256: str | None = None) -> ObjectInfo:
        """Write a file's content, in place of what may be there; returns what was stored.

        Args:
            sha256: the digest (hex) that the content must have, where the caller knows it: the file
                is then read once, not twice.

        Raises:
            DamagedObjectError: the file has another digest, or the store something else afterwards.
        """

    def put_if_absent(self, key: str, content: bytes) -> bool:
        """Write unless the key exists; of several writers at once exactly one gets True."""

    def read(self, key: str) -> Stored | None:
        """The content to be replaced, and its tag; None when the key does not exist."""

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        """Compare and swap: write if nothing was written since `read` gave this tag.

        Args:
            tag: None if the key must not exist yet.

        Returns:
            Whether it was written; of several writers with one tag exactly one gets True.
        """

    def copy(self, source: str, target: str) -> None:
        """Write what is under `source` under `target` too, in place of what may be there.

        The store does it: no bytes pass through this process.

        Raises:
            MissingObjectError: nothing under `source`.
        """

    def list(self, prefix: str = "") -> Iterator[str]:
        """All keys that start with `prefix`, in no particular order."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """The same with what the listing says of each; no object is read."""

    def folders(self) -> Iterator[str]:
        """The first parts of all keys that have several, each once, in no particular order."""

    def delete(self, key: str) -> None:
        """Remove; a key that does not exist is no error."""

    def stat(self, key: str) -> ObjectInfo | None:
        """Size and digest; None when the key does not exist."""

    def url(self, key: str = "") -> str:
        """The address to show to a user or to hand to another program."""


def check_key(key: str) -> str:
    """Return the key as it is if every store can hold it.

    Raises:
        StorageError: empty, absolute, too long, with a backslash, a control character, or an
            empty, "." or ".." part.
    """
    unsafe = any(part in ("", ".", "..") for part in key.split("/"))
    if unsafe or "\\" in key or not key.isprintable() or len(key.encode()) > MAX_KEY_BYTES:
        raise StorageError(
            f"object key {key!r:.80} is not usable; give a relative path of printable characters "
            f"without '..', empty parts or backslashes, at most {MAX_KEY_BYTES} bytes"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix as it is if some key may start with it. Raises StorageError."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def sha256_of(path: Path) -> ObjectInfo:
    """Size and sha256 of a file's content. Raises StorageError."""
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256")
            return ObjectInfo(size=content.tell(), sha256=digest.hexdigest())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


def check_digest(where: str, found: str, *expected: str | None) -> None:
    """Raise DamagedObjectError unless the digest found is each of the known expected ones."""
    for digest in expected:
        if digest is not None and digest != found:
            raise DamagedObjectError(
                f"{where} is damaged: its sha256 is {found[:12]}..., it must be {digest[:12]}...; "
                "delete it and write it again"
            )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary file in `folder`, made if need be; remove it if it is still there.

    Raises OSError.
    """
    with file_beside(folder) as temporary:
        temporary.chmod(0o644)
        yield temporary
