"""Files to and from S3 in parts, several at once, each tried again by itself and each checked.

A part goes up with its MD5, which the server compares before it keeps it, and comes down from the
version of the object that the first part came from. Memory holds a few parts, never the file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from minio.datatypes import Part
from minio.error import S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ProtocolError

from lrf_core import telemetry
from lrf_core.storage.base import DamagedObjectError, ObjectInfo
from lrf_core.storage.refusals import FAILURES, ChangedObjectError
from lrf_core.storage.retry import with_retries
from lrf_core.storage.settings import Server

T = TypeVar("T")

SHA256 = "X-Amz-Meta-sha256"
# Of a file that is sent, and of one that is received, which memory never holds whole.
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
RECEIVED_BYTES = 32 << 20
RECEIVED_AT_ONCE = 3
_MOST_PARTS = 10_000  # S3 allows no more
_CHUNK_BYTES = 4 << 20
_READ_BYTES = 256 << 10


@dataclass(frozen=True)
class Place:
    """An object on a server; it need not be there."""

    server: Server
    bucket: str
    name: str

    def persist(self, request: Callable[[], T]) -> T:
        """What the request returns, tried again while the server fails in passing."""

        def readable() -> T:
            try:
                return request()
            except (ValueError, ElementTree.ParseError):
                # The client takes answers for well-formed; a bit of one may be another.
                raise ProtocolError("an answer that cannot be read") from None

        where = f"S3 at {self.server.endpoint}, bucket '{self.bucket}'"
        return with_retries(readable, where, self.server.patience_s)

    @contextmanager
    def reading(
        self, start: int = 0, length: int = 0, etag: str | None = None
    ) -> Iterator[BaseHTTPResponse]:
        """The answer to one request for the content, or for a range of it where `length` is given.

        Raises:
            ChangedObjectError: it has another ETag by now.
        """
        try:
            response = self.server.client.get_object(
                self.bucket,
                self.name,
                offset=start,
                length=length,
                request_headers={"If-Match": etag} if etag else None,
            )
        except S3Error as error:
            if error.code == "PreconditionFailed":
                raise ChangedObjectError from None
            raise
        try:
            yield response
        finally:
            response.close()
            response.release_conn()


@dataclass(frozen=True)
class Received:
    """What came down: the sha256 (hex) of the bytes, and the one recorded with the object."""

    sha256: str
    recorded: str | None


def put_headers(content: bytes, metadata: Mapping[str, str]) -> dict[str, str]:
    """For a write of these bytes: the server compares them with their MD5 before it keeps them."""
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return {"Content-MD5": base64.b64encode(digest).decode(), **metadata}


def recorded(headers: Mapping[str, str], name: str = SHA256) -> str | None:
    """What an object's metadata says, whichever way the server spells the name."""
    wanted = name.lower()
    return next((value for key, value in headers.items() if key.lower() == wanted), None)


def put_content(place: Place, content: bytes, metadata: Mapping[str, str]) -> str:
    """Write bytes by one request; the ETag that the server gives them."""
    headers = put_headers(content, metadata)
    client = place.server.client
    # The client adds to the headers that it is given.
    written = place.persist(
        lambda: client._put_object(place.bucket, place.name, content, dict(headers))
    )
    telemetry.count_moved("up", len(content))
    return str(written.etag)


def send(place: Place, path: Path, given: ObjectInfo) -> bool:
    """Write a file, in parts where it is large.

    Args:
        given: size and sha256 that the file must have; recorded with the object.

    Returns:
        Whether the ETag says that the server has these bytes. It does where it is made of MD5 sums,
        as without encryption by the server.

    Raises:
        DamagedObjectError: the file has changed since; nothing is written then.
        OSError: the file cannot be read.
        one of FAILURES
    """
    metadata = {SHA256: given.sha256 or ""}
    if given.size <= PART_BYTES:
        content = path.read_bytes()
        _check_unchanged(path, hashlib.sha256(content).hexdigest(), given)
        etag = put_content(place, content, metadata)
        return etag == hashlib.md5(content, usedforsecurity=False).hexdigest()
    client = place.server.client
    upload = place.persist(
        lambda: client._create_multipart_upload(place.bucket, place.name, dict(metadata))
    )
    try:
        parts = _send_parts(place, upload, path, given)
        etag = place.persist(_Completion(place, upload, parts))
    except BaseException:
        # The server would keep the parts, unseen.
        with contextlib.suppress(*FAILURES):
            client._abort_multipart_upload(place.bucket, place.name, upload)
        raise
    sums = b"".join(bytes.fromhex(part.etag) for part in parts if _is_md5(part.etag))
    return etag == f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(parts)}"


def receive(place: Place, target: Path) -> Received:
    """Read an object into a file that exists, in parts where it is large.

    Raises:
        OSError: the file cannot be written.
        ChangedObjectError: somebody wrote the object meanwhile.
        one of FAILURES
    """
    with target.open("r+b", buffering=0) as file:
        first = place.persist(lambda: _first_part(place, file.fileno()))
        digest = _Digest(file.fileno())
        digest.read(first.stop)
        if first.size > first.stop:
            os.posix_fallocate(file.fileno(), 0, first.size)
            for stop in _receive_rest(place, file.fileno(), first):
                digest.read(stop)
    return Received(digest.sha256.hexdigest(), first.recorded)


@dataclass
class _Completion:
    """Makes an object of the parts; an attempt whose answer was lost may have done so already."""

    place: Place
    upload: str
    parts: list[Part]
    tried: bool = False

    def __call__(self) -> str:
        """The ETag of the object; empty if nobody knows."""
        again, self.tried = self.tried, True
        place = self.place
        try:
            written = place.server.client._complete_multipart_upload(
                place.bucket, place.name, self.upload, self.parts
            )
            return str(written.etag)
        except S3Error as error:
            # Whoever called looks at what is there anyway.
            if not (again and error.code == "NoSuchUpload"):
                raise
            return ""


def _send_parts(place: Place, upload: str, path: Path, given: ObjectInfo) -> list[Part]:
    size = max(PART_BYTES, -(-given.size // _MOST_PARTS))
    digest = hashlib.sha256()
    running: deque[Future[Part]] = deque()
    done: list[Part] = []

    def send_part(number: int, content: bytes) -> Part:
        headers = put_headers(content, {})
        etag = place.persist(
            lambda: place.server.client._upload_part(
                place.bucket, place.name, content, dict(headers), upload, number
            )
        )
        telemetry.count_moved("up", len(content))
        return Part(number, etag)

    with path.open("rb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        try:
            while content := file.read(size):
                digest.update(content)
                if len(running) >= PARTS_AT_ONCE:
                    done.append(running.popleft().result())
                running.append(pool.submit(send_part, len(done) + len(running) + 1, content))
            done += [future.result() for future in running]
        finally:
            pool.shutdown(cancel_futures=True)
    _check_unchanged(path, digest.hexdigest(), given)
    return done


def _is_md5(etag: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", etag) is not None


def _check_unchanged(path: Path, sha256: str, given: ObjectInfo) -> None:
    if sha256 != given.sha256:
        raise DamagedObjectError(
            f"{path} is not what it was, or should be, before it was sent; something else writes "
            "to it. Run it again."
        )


@dataclass(frozen=True)
class _First:
    """The first part of an object: where it stops, and what the answer says about the whole."""

    stop: int
    size: int
    etag: str
    recorded: str | None


def _first_part(place: Place, file: int) -> _First:
    try:
        with place.reading(0, RECEIVED_BYTES) as response:
            stop = _write_from(response, file, 0)
            _, _, size = response.headers.get("Content-Range", "").rpartition("/")
            whole = int(size) if size.isdigit() else stop
            if stop != min(whole, RECEIVED_BYTES) and size:
                raise ProtocolError(f"{stop} bytes of {min(whole, RECEIVED_BYTES)}")
            return _First(stop, whole, response.headers["ETag"], recorded(response.headers))
    except S3Error as error:
        if error.code != "InvalidRange":  # an empty object has no first byte
            raise
    with place.reading() as response:
        stop = _write_from(response, file, 0)
        return _First(stop, stop, response.headers["ETag"], recorded(response.headers))


def _receive_rest(place: Place, file: int, first: _First) -> Iterator[int]:
    """Give the position up to which the whole file is there, each time it moves on."""

    def receive_part(start: int, stop: int) -> None:
        with place.reading(start, stop - start, first.etag) as response:
            reached = _write_from(response, file, start)
        if reached != stop:
            raise ProtocolError(f"{reached - start} bytes of {stop - start}")

    ranges = [
        (start, min(start + RECEIVED_BYTES, first.size))
        for start in range(first.stop, first.size, RECEIVED_BYTES)
    ]
    with ThreadPoolExecutor(RECEIVED_AT_ONCE) as pool:
        running = [pool.submit(place.persist, lambda own=own: receive_part(*own)) for own in ranges]
        try:
            for own, future in zip(ranges, running, strict=True):
                future.result()
                yield own[1]
        finally:
            pool.shutdown(cancel_futures=True)


def _write_from(response: BaseHTTPResponse, file: int, start: int) -> int:
    """Write the answer's body to the file from `start` on; returns where it ends."""
    begin = start
    # Not decoded: a range of compressed content is no compressed content.
    for chunk in response.stream(_CHUNK_BYTES, decode_content=False):
        view = memoryview(chunk)
        while view:
            written = os.pwrite(file, view, start)
            view, start = view[written:], start + written
    telemetry.count_moved("down", start - begin)
    return start


class _Digest:
    """The sha256 of a file that is being filled: what has come is in the page cache still."""

    def __init__(self, file: int) -> None:
        self.sha256 = hashlib.sha256()
        self._file, self._position = file, 0
        # One buffer for all: new pages for each read would cost as much as the reading.
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def read(self, stop: int) -> None:
        """Go on up to `stop`."""
        while self._position < stop:
            part = self._buffer[: stop - self._position]
            count = os.preadv(self._file, [part], self._position)
            if count == 0:
                raise OSError("the file is shorter than what was written to it")
            self.sha256.update(part[:count])
            self._position += count
