"""S3 as object storage, through the minio client: SeaweedFS, MinIO, AWS and others."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minio.commonconfig import CopySource
from minio.helpers import check_bucket_name

from lrf_core import telemetry
from lrf_core.errors import StorageError
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
from lrf_core.storage.conditional import Condition, ConditionalWrite
from lrf_core.storage.refusals import FAILURES, ChangedObjectError, no_bucket, refusal
from lrf_core.storage.retry import is_unreachable
from lrf_core.storage.settings import Server, server_named_by
from lrf_core.storage.transfer import SHA256, Place, put_content, receive, recorded, send

T = TypeVar("T")

_logger = logging.getLogger("lrf")


@dataclass(frozen=True)
class S3Store:
    """Keys are object names below `prefix` in `bucket`. See `Store` for what each method promises.

    The sha256 of every object is kept in its metadata and compared with what comes back. On the
    way there the content is protected by its MD5, which the server compares before it keeps it.

    Whatever fails in passing (resets, half answers, HTTP status 500 to 504, a server that starts
    again) is tried again for `LRF_S3_RETRY_S` seconds.
    """

    endpoint: str
    bucket: str
    prefix: str
    server: Server = field(repr=False)

    @classmethod
    def open(cls, bucket: str, prefix: str = "") -> S3Store:
        """Open a bucket with the settings in the environment. No request is made to it yet.

        See docs/storage.md for the settings: LRF_S3_ENDPOINT is the server, LRF_S3_SECRET,
        LRF_S3_KEYS or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY its keys, AWS_CA_BUNDLE the
        certificates to trust.

        Raises:
            StorageError: a setting is missing or unusable.
        """
        check_prefix(prefix)
        try:
            check_bucket_name(bucket, strict=True)
        except ValueError as error:
            raise StorageError(f"{error}; write s3://bucket/prefix") from None
        server = server_named_by(os.environ)
        return cls(server.endpoint, bucket, prefix, server)

    def check(self) -> None:
        """Raise StorageError unless the server answers, takes the keys and has the bucket.

        A server that cannot be connected to is not waited for: more likely its address is wrong.
        """

        def exists() -> bool:
            try:
                return self.server.client.bucket_exists(self.bucket)
            except FAILURES as error:
                if is_unreachable(error):
                    raise self._refusal(error, "") from None
                raise

        if not self._asked("", exists):
            raise no_bucket(self.endpoint, self.bucket)

    def get(self, key: str) -> bytes:
        return self._read(key).content

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        place = self._place(key)
        try:
            with staged(path.parent) as temporary:
                try:
                    self._receive(place, key, temporary, sha256)
                except (DamagedObjectError, ChangedObjectError) as error:
                    # It may have changed on its way only, or have been written meanwhile.
                    _logger.info(
                        "%s: %s; reading it once more", self.url(key), type(error).__name__
                    )
                    with self._explained(key):
                        self._receive(place, key, temporary, sha256)
                temporary.replace(path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from None

    def put(self, key: str, content: bytes) -> None:
        place = self._place(key)
        with self._explained(key):
            put_content(place, content, {SHA256: hashlib.sha256(content).hexdigest()})

    def put_file(self, key: str, path: Path, sha256: str | None = None) -> ObjectInfo:
        place = self._place(key)
        try:
            given = ObjectInfo(path.stat().st_size, sha256) if sha256 else sha256_of(path)
            with self._explained(key):
                proven = send(place, path, given)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
        if not proven and self.stat(key) != given:
            raise DamagedObjectError(
                f"{self.url(key)} is not what {path} was before it was sent; something else "
                "writes to one of them. Run it again."
            )
        return given

    def put_if_absent(self, key: str, content: bytes) -> bool:
        return self.replace(key, content, None)

    def read(self, key: str) -> Stored | None:
        try:
            return self._read(key)
        except MissingObjectError:
            return None

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        write = ConditionalWrite(self._place(key), content, Condition.of(tag), uuid.uuid4().hex)
        return self._asked(key, write)

    def copy(self, source: str, target: str) -> None:
        names = self._name(source), self._name(target)
        self._asked(
            source,
            lambda: self.server.client.copy_object(
                self.bucket, names[1], CopySource(self.bucket, names[0])
            ),
        )

    def list(self, prefix: str = "") -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for key, item in self._listed(check_prefix(prefix), recursive=True):
            if not item.is_dir:
                yield Entry(key, item.size or 0, str(item.etag or item.last_modified))

    def folders(self) -> Iterator[str]:
        return (key.rstrip("/") for key, item in self._listed("", recursive=False) if item.is_dir)

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            self._asked(key, lambda: self.server.client.remove_object(self.bucket, name))
        except MissingObjectError:
            return

    def stat(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        try:
            found = self._asked(key, lambda: self.server.client.stat_object(self.bucket, name))
        except MissingObjectError:
            return None
        return ObjectInfo(
            found.size or 0, recorded(found.metadata or {}), found.etag, found.last_modified
        )

    def url(self, key: str = "") -> str:
        parts = (self.bucket, self.prefix, check_key(key) if key else "")
        return "s3://" + "/".join(part for part in parts if part)

    def _listed(self, prefix: str, *, recursive: bool) -> Iterator[tuple[str, Any]]:
        """Key and description of objects, and with `recursive=False` of folders instead."""
        start = f"{self.prefix}/" if self.prefix else ""
        found = self._asked(
            "",
            lambda: list(
                self.server.client.list_objects(
                    self.bucket, prefix=start + prefix, recursive=recursive
                )
            ),
        )
        return ((str(item.object_name).removeprefix(start), item) for item in found)

    def _read(self, key: str) -> Stored:
        place = self._place(key)

        def whole() -> Stored:
            with place.reading() as response:
                content = response.read(decode_content=False)
                found = hashlib.sha256(content).hexdigest()
                check_digest(self.url(key), found, recorded(response.headers))
                telemetry.count_moved("down", len(content))
                return Stored(content, Condition.tag_of(response.headers))

        return self._asked(key, whole)

    def _receive(self, place: Place, key: str, target: Path, sha256: str | None) -> None:
        with self._explained(key, besides=ChangedObjectError):
            found = receive(place, target)
        check_digest(self.url(key), found.sha256, found.recorded, sha256)

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _place(self, key: str) -> Place:
        return Place(self.server, self.bucket, self._name(key))

    def _asked(self, key: str, request: Callable[[], T]) -> T:
        with self._explained(key):
            return Place(self.server, self.bucket, key).persist(request)

    @contextmanager
    def _explained(self, key: str, besides: type[Exception] | None = None) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            if besides is not None and isinstance(error, besides):
                raise
            raise self._refusal(error, key) from None

    def _refusal(self, error: Exception, key: str) -> StorageError:
        return refusal(error, self.endpoint, self.bucket, self.url(key))
