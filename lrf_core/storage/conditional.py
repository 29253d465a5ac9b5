"""A conditional write to S3 that is tried again and still tells truly who wrote.

An answer that is lost leaves open whether the write was done. A second attempt then finds its own
first one in place, and the server calls that a failed condition, as if somebody else had written.
So each write carries a random name of its writer in the object's metadata, by which it is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from minio.error import S3Error
from minio.helpers import DictType

from lrf_core import telemetry
from lrf_core.storage.refusals import MISSING
from lrf_core.storage.transfer import SHA256, Place, put_headers, recorded

WRITER = "X-Amz-Meta-writer"


@dataclass(frozen=True)
class Condition:
    """What must be there: an object with this ETag by this writer, or nothing (no ETag)."""

    etag: str | None
    writer: str | None

    @classmethod
    def of(cls, tag: str | None) -> Condition:
        """Of what `tag_of` gave, or None for nothing."""
        if tag is None:
            return cls(None, None)
        etag, _, writer = tag.partition(" ")
        return cls(etag, writer or None)

    @staticmethod
    def tag_of(headers: Mapping[str, str]) -> str:
        """ETag and writer of an object. The ETag alone is the same for the same content again."""
        return f"{_quoted(headers['ETag'])} {recorded(headers, WRITER) or ''}"

    def headers(self) -> dict[str, str]:
        return {"If-None-Match": "*"} if self.etag is None else {"If-Match": self.etag}


@dataclass
class ConditionalWrite:
    """Writes once, however often it is called; returns whether it did.

    False may also mean that it did, lost the answer, and that others have replaced the object
    before it could look. Whoever replaces content reads it again then, and finds both.
    """

    place: Place
    content: bytes
    condition: Condition
    writer: str
    tried: bool = False

    def __call__(self) -> bool:
        if self.tried:
            found = self._found()
            if found.writer == self.writer:
                return True
            if found != self.condition:
                return False
        self.tried = True
        return self._written()

    def _written(self) -> bool:
        metadata = {SHA256: hashlib.sha256(self.content).hexdigest(), WRITER: self.writer}
        headers: DictType = {**self.condition.headers(), **put_headers(self.content, metadata)}
        place = self.place
        try:
            # The public put_object would turn the condition into metadata.
            place.server.client._put_object(place.bucket, place.name, self.content, headers)
        except S3Error as error:
            # A key to match that is gone is "missing" to some servers.
            if error.code == "PreconditionFailed" or error.code in MISSING:
                # An earlier attempt may have arrived only now.
                return self._found().writer == self.writer
            raise
        telemetry.count_moved("up", len(self.content))
        return True

    def _found(self) -> Condition:
        """What is there now, as a condition would name it."""
        try:
            found = self.place.server.client.stat_object(self.place.bucket, self.place.name)
        except S3Error as error:
            if error.code in MISSING:
                return Condition(None, None)
            raise
        return Condition(_quoted(found.etag or ""), recorded(found.metadata or {}, WRITER))


def _quoted(etag: str) -> str:
    return '"' + etag.strip('"') + '"'
