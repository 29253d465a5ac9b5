"""Object storage behind one small interface: a local directory, or S3."""

from lrf_core.storage.address import open_store, register_store
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

__all__ = [
    "DamagedObjectError",
    "Entry",
    "MissingObjectError",
    "ObjectInfo",
    "Store",
    "Stored",
    "check_key",
    "open_store",
    "register_store",
    "sha256_of",
]
