"""Files and folders that a user names: on this machine, or in object storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from lrf_core.errors import StorageError
from lrf_core.storage import open_store
from lrf_core.storage.base import Store
from lrf_core.storage.cache import cached_file, cached_prefix

_REMOTE = ("s3://", "minio://")


def is_remote(source: str) -> bool:
    """Whether the source is in S3."""
    return source.startswith(_REMOTE)


def is_absent(source: str) -> bool:
    """Whether nothing is at a path or `file://` URI; what is in S3 is not asked for."""
    if is_remote(source):
        return False
    path = _path(source)
    return path is None or not path.exists()


def file_at(source: str) -> Path | None:
    """The file at a path or URI, fetched if need be; None where there is none.

    Args:
        source: a path, `file:///path`, `s3://bucket/key` or `minio://bucket/key`.

    Raises:
        StorageError: a URI that names nothing, or a store that cannot be read.
    """
    if not is_remote(source):
        path = _path(source)
        return path if path is not None and path.is_file() else None
    store, key = addressed(source)
    return cached_file(store, key.rstrip("/")) if key and not key.endswith("/") else None


def folder_at(source: str) -> Path | None:
    """The folder at a path, or all below a prefix, fetched if need be; None where there is none.

    Args:
        source: as for `file_at`.

    Raises:
        StorageError: a URI that names nothing, or a store that cannot be read.
    """
    if not is_remote(source):
        path = _path(source)
        return path if path is not None and path.is_dir() else None
    store, key = addressed(source)
    return cached_prefix(store, f"{key.rstrip('/')}/" if key.rstrip("/") else "")


def _path(source: str) -> Path | None:
    if not source:
        return None
    if source.startswith("file://"):
        return Path(unquote(urlsplit(source).path))
    return Path(source)


def addressed(source: str) -> tuple[Store, str]:
    """The bucket of an `s3://` or `minio://` source as a store, and the key in it.

    Raises:
        StorageError: a URI that names no bucket, or S3 settings that are missing or unusable.
    """
    scheme, _, rest = source.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise StorageError(f"{source} names no bucket; write {scheme}://bucket/key")
    return open_store(f"{scheme}://{bucket}"), key
