"""Files and folders that a user names: on this machine, or in object storage."""

from __future__ import annotations

from pathlib import Path

from lrf_core.storage.address import Address
from lrf_core.storage.cache import cached_file, cached_prefix


def is_absent(source: str) -> bool:
    """Whether nothing is at a path or `file://` URI; what is in a bucket is not looked for.

    Raises:
        StorageError: an address that cannot be used.
    """
    address = Address.of(source)
    return not address.is_remote and not (address.path and Path(address.path).exists())


def file_at(source: str) -> Path | None:
    """The file at a path or URI, fetched if need be; None if there is none.

    Args:
        source: a path, `file:///path`, `s3://bucket/key` or `minio://bucket/key`.

    Raises:
        StorageError: an address that cannot be used, or a store that cannot be read.
    """
    address = Address.of(source)
    if not address.is_remote:
        path = Path(address.path)
        return path if address.path and path.is_file() else None
    key = address.path
    return cached_file(address.bucket_store(), key) if key and not key.endswith("/") else None


def folder_at(source: str) -> Path | None:
    """The folder at a path, or all below a prefix, fetched if need be; None if there is none.

    Args:
        source: as for `file_at`.

    Raises:
        StorageError: an address that cannot be used, or a store that cannot be read.
    """
    address = Address.of(source)
    if not address.is_remote:
        path = Path(address.path)
        return path if address.path and path.is_dir() else None
    key = address.path.rstrip("/")
    return cached_prefix(address.bucket_store(), f"{key}/" if key else "")
