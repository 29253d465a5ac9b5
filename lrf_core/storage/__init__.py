"""Object storage behind one small interface: a local directory, or S3."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lrf_core.errors import StorageError
from lrf_core.storage.base import (
    DamagedObjectError,
    Entry,
    MissingObjectError,
    ObjectInfo,
    Store,
    Stored,
    check_key,
    sha256_of,
)
from lrf_core.storage.local import LocalStore
from lrf_core.storage.s3 import S3Store

__all__ = [
    "DamagedObjectError",
    "Entry",
    "MissingObjectError",
    "ObjectInfo",
    "Store",
    "Stored",
    "check_key",
    "open_store",
    "sha256_of",
]


def open_store(uri: str) -> Store:
    """The store at an address. Nothing is read or written yet; `Store.check` does.

    Args:
        uri: `file:///dir`, a plain path, `s3://bucket/prefix` or `minio://bucket/prefix`. The S3
            endpoint, keys, region and CA come from the environment (see `S3Store.open`).

    Raises:
        StorageError: no such kind of store, or S3 settings that are missing or unusable.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStore(_directory(uri, uri))
    # The address may carry keys by mistake (s3://key:secret@bucket), so it is not shown.
    if "@" in rest.partition("/")[0]:
        raise StorageError(
            "the store's address holds a user name or keys; give them in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY instead"
        )
    parts = urlsplit(uri)
    if parts.query or parts.fragment:
        raise StorageError(f"store {uri} must not have a query or a fragment")
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StorageError(f"store {uri} names a host; write file:///absolute/dir")
        return LocalStore(_directory(unquote(parts.path), uri))
    if scheme in ("s3", "minio"):
        return S3Store.open(bucket=parts.netloc, prefix=parts.path.strip("/"))
    raise StorageError(
        f"store {uri} is of an unknown kind; use file:///dir, s3://bucket/prefix or "
        "minio://bucket/prefix"
    )


def _directory(path: str, uri: str) -> Path:
    if not path:
        raise StorageError(f"store '{uri}' names no directory; write file:///absolute/dir")
    return Path(path).absolute()
