"""The addresses of stores and of what is in them, and the kinds of stores that there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from lrf_core.errors import StorageError
from lrf_core.storage.base import Store
from lrf_core.storage.local import LocalStore
from lrf_core.storage.s3 import S3Store

# From a bucket and a prefix in it to a store. Raises StorageError.
StoreOpener = Callable[[str, str], Store]

_LOCAL = "file"
_openers: dict[str, StoreOpener] = {"s3": S3Store.open, "minio": S3Store.open}


@dataclass(frozen=True)
class Address:
    """A path on this machine, or a key or prefix in a bucket.

    Attributes:
        scheme: `file` for what is on this machine.
        bucket: empty for what is on this machine.
        path: of a file or folder, or in the bucket, without a slash in front.
    """

    scheme: str
    bucket: str
    path: str

    @classmethod
    def of(cls, uri: str) -> Address:
        """Parse a path, `file:///path`, or `scheme://bucket/path` of a kind of store that is known.

        Raises:
            StorageError: credentials, a query or a host if none may be, or an unknown scheme.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator:
            return cls(_LOCAL, "", uri)
        # The address may carry keys by mistake (s3://key:secret@bucket), so it is not shown.
        if "@" in rest.partition("/")[0]:
            raise StorageError(
                "an address holds a user name or keys; give them in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY instead"
            )
        if scheme == _LOCAL:
            host, slash, path = rest.partition("/")
            if host not in ("", "localhost"):
                raise StorageError(f"{uri} names a host; write file:///absolute/path")
            return cls(_LOCAL, "", unquote(slash + path))
        if scheme not in _openers:
            known = " or ".join(f"{each}://bucket/path" for each in _openers)
            raise StorageError(f"{uri} is of an unknown kind; use a path, file:///path, {known}")
        bucket, _, path = rest.partition("/")
        if not bucket:
            raise StorageError(f"{uri} names no bucket; write {scheme}://bucket/key")
        return cls(scheme, bucket, path)

    @property
    def is_remote(self) -> bool:
        """Whether it is in a bucket, not on this machine."""
        return self.scheme != _LOCAL

    def bucket_store(self) -> Store:
        """The whole bucket. Raises StorageError: settings that are missing or unusable."""
        return _openers[self.scheme](self.bucket, "")


def register_store(scheme: str, opener: StoreOpener) -> None:
    """Let `scheme://bucket/prefix` name stores of another kind.

    Args:
        scheme: as in "gs".
        opener: from a bucket and a prefix, which may be empty, to a store that keeps what `Store`
            promises; `tests/storage/test_store_contract.py` checks one.

    Raises:
        ValueError: the scheme is taken.
    """
    if scheme == _LOCAL or scheme in _openers:
        raise ValueError(f"stores at {scheme}:// are of another kind already")
    _openers[scheme] = opener


def open_store(uri: str) -> Store:
    """The store at an address. Nothing is read or written yet; `Store.check` does.

    Args:
        uri: `file:///dir`, a plain path, `s3://bucket/prefix` or `minio://bucket/prefix`. The S3
            endpoint, keys, region and CA come from the environment (see `S3Store.open`).

    Raises:
        StorageError: no such kind of store, or S3 settings that are missing or unusable.
    """
    address = Address.of(uri)
    if "://" in uri and set("?#") & set(uri):
        raise StorageError(f"store {uri} must not have a query or a fragment")
    if address.is_remote:
        return _openers[address.scheme](address.bucket, address.path.strip("/"))
    if not address.path:
        raise StorageError(f"store '{uri}' names no directory; write file:///absolute/dir")
    return LocalStore(Path(address.path).absolute())
