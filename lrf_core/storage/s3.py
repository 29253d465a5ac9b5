"""S3 as object storage, through the minio client: SeaweedFS, MinIO, AWS and others."""

from __future__ import annotations

import configparser
import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    Provider,
)
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import DictType, check_bucket_name
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from lrf_core.errors import StorageError
from lrf_core.storage.base import (
    DamagedObjectError,
    MissingObjectError,
    ObjectInfo,
    Stored,
    check_digest,
    check_key,
    check_prefix,
    sha256_of,
    staged,
)

_AWS_ENDPOINT = "https://s3.amazonaws.com"
_SETTING = "LRF_S3_ENDPOINT"
_ENDPOINT_SETTINGS = (_SETTING, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_SHA256 = "X-Amz-Meta-sha256"
_CHUNK_BYTES = 1 << 20

# A server that is down must be noticed while a person still watches.
_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 30.0

_REFUSED_KEYS = {
    "AccessDenied": "the keys are refused or do not allow this",
    "InvalidAccessKeyId": "the access key is unknown there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid there",
    "RequestTimeTooSkewed": "the clocks of this machine and the server differ",
}
_MISSING = ("NoSuchKey", "NoSuchVersion", "ResourceNotFound")


@dataclass(frozen=True)
class S3Store:
    """Keys are object names below `prefix` in `bucket`. See `Store` for what each method promises.

    The sha256 of every object is kept in its metadata. In transit, the content is protected by
    the signature (http) or by TLS and Content-MD5 (https), both checked by the server.
    """

    endpoint: str
    bucket: str
    prefix: str
    client: Minio = field(repr=False)

    @classmethod
    def open(cls, bucket: str, prefix: str = "") -> S3Store:
        """Open a bucket with the settings in the environment. No request is made yet.

        LRF_S3_ENDPOINT (else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS itself) is the server;
        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else the credentials file
        (AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE), are the keys; AWS_REGION is the region;
        AWS_CA_BUNDLE or SSL_CERT_FILE the certificates to trust.

        Raises:
            StorageError: a setting is missing or unusable.
        """
        check_prefix(prefix)
        endpoint = _endpoint(os.environ)
        address = urlsplit(endpoint)
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not region and endpoint != _AWS_ENDPOINT:
            region = "us-east-1"  # what S3-compatible servers take when they have no regions
        try:
            check_bucket_name(bucket, strict=True)
        except ValueError as error:
            raise StorageError(f"{error}; write s3://bucket/prefix") from None
        client = Minio(
            address.netloc,
            secure=address.scheme == "https",
            region=region,
            credentials=_credentials(),
            http_client=_connections(os.environ),
        )
        return cls(endpoint, bucket, prefix, client)

    def check(self) -> None:
        """Raise StorageError unless the server answers, takes the keys and has the bucket."""
        with self._explained():
            if not self.client.bucket_exists(self.bucket):
                raise self._no_bucket()

    def get(self, key: str) -> bytes:
        name = self._name(key)
        with self._explained(key), self._reading(name) as response:
            content = response.read()
            found = hashlib.sha256(content).hexdigest()
            check_digest(self.url(key), found, _recorded(response.headers))
            return content

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> None:
        name = self._name(key)
        try:
            with (
                staged(path.parent) as temporary,
                self._explained(key),
                self._reading(name) as response,
            ):
                with temporary.open("wb") as target:
                    for chunk in response.stream(_CHUNK_BYTES):
                        target.write(chunk)
                found = sha256_of(temporary).sha256 or ""
                check_digest(self.url(key), found, _recorded(response.headers), sha256)
                temporary.replace(path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from None

    def put(self, key: str, content: bytes) -> None:
        name = self._name(key)
        with self._explained(key):
            self.client.put_object(
                self.bucket, name, io.BytesIO(content), len(content), metadata=_metadata(content)
            )

    def put_file(self, key: str, path: Path) -> ObjectInfo:
        name = self._name(key)
        given = sha256_of(path)
        try:
            with self._explained(key):
                self.client.fput_object(
                    self.bucket, name, str(path), metadata={_SHA256: given.sha256 or ""}
                )
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
        if self.stat(key) != given:
            raise DamagedObjectError(
                f"{self.url(key)} is not what {path} was before it was sent; something else "
                "writes to one of them. Run it again."
            )
        return given

    def put_if_absent(self, key: str, content: bytes) -> bool:
        return self._put_on_condition(key, content, {"If-None-Match": "*"})

    def read(self, key: str) -> Stored | None:
        name = self._name(key)
        try:
            with self._explained(key), self._reading(name) as response:
                content = response.read()
                found = hashlib.sha256(content).hexdigest()
                check_digest(self.url(key), found, _recorded(response.headers))
                return Stored(content, response.headers["etag"])
        except MissingObjectError:
            return None

    def replace(self, key: str, content: bytes, tag: str | None) -> bool:
        condition = {"If-None-Match": "*"} if tag is None else {"If-Match": tag}
        return self._put_on_condition(key, content, condition)

    def copy(self, source: str, target: str) -> None:
        with self._explained(source):
            self.client.copy_object(
                self.bucket, self._name(target), CopySource(self.bucket, self._name(source))
            )

    def list(self, prefix: str = "") -> Iterator[str]:
        start = f"{self.prefix}/" if self.prefix else ""
        with self._explained():
            found = self.client.list_objects(
                self.bucket, prefix=start + check_prefix(prefix), recursive=True
            )
            for item in found:
                if not item.is_dir:
                    yield str(item.object_name).removeprefix(start)

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            with self._explained(key):
                self.client.remove_object(self.bucket, name)
        except MissingObjectError:
            return

    def stat(self, key: str) -> ObjectInfo | None:
        name = self._name(key)
        try:
            with self._explained(key):
                found = self.client.stat_object(self.bucket, name)
        except MissingObjectError:
            return None
        return ObjectInfo(found.size or 0, _recorded(found.metadata or {}), found.last_modified)

    def url(self, key: str = "") -> str:
        parts = (self.bucket, self.prefix, check_key(key) if key else "")
        return "s3://" + "/".join(part for part in parts if part)

    def _put_on_condition(self, key: str, content: bytes, condition: dict[str, str]) -> bool:
        name = self._name(key)
        with self._explained(key):
            try:
                # The public put_object would turn these headers into metadata.
                self.client._put_object(
                    self.bucket, name, content, {**condition, **_metadata(content)}
                )
            except S3Error as error:
                # A key to match that is gone is "missing" to some servers.
                if error.code == "PreconditionFailed" or error.code in _MISSING:
                    return False
                raise
        return True

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    @contextmanager
    def _reading(self, name: str) -> Iterator[urllib3.BaseHTTPResponse]:
        response = self.client.get_object(self.bucket, name)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        # Only codes and causes are passed on: a server's own words may repeat a session token.
        where = f"S3 at {self.endpoint}, bucket '{self.bucket}'"
        try:
            yield
        except S3Error as error:
            raise self._refusal(where, key, error) from None
        except InvalidResponseError:
            raise StorageError(
                f"{where}: the answer is not that of an S3 server; check that {_SETTING} is the "
                "address and port of its S3 interface"
            ) from None
        except ServerError as error:
            raise StorageError(
                f"{where}: the server failed with HTTP status {error.status_code}; see its log, "
                "then run it again"
            ) from None
        except MinioException as error:
            raise StorageError(f"{where}: {type(error).__name__}; see the server's log") from None
        except HTTPError as error:
            raise StorageError(f"{where}: {_unreachable(error)}") from None

    def _refusal(self, where: str, key: str, error: S3Error) -> StorageError:
        if error.code in _MISSING:
            return MissingObjectError(
                f"nothing at {self.url(key)} ({self.endpoint}); check the key"
            )
        if error.code == "NoSuchBucket":
            return self._no_bucket()
        if error.code in _REFUSED_KEYS:
            return StorageError(
                f"{where}: {_REFUSED_KEYS[error.code]} ({error.code}); check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the credentials file, and what "
                "the keys may do"
            )
        return StorageError(
            f"{where}: the server refused with {error.code}; check AWS_REGION, what the keys may "
            "do, and the server's log"
        )

    def _no_bucket(self) -> StorageError:
        return StorageError(
            f"S3 at {self.endpoint} has no bucket '{self.bucket}'; create it or correct the name"
        )


def _endpoint(environment: Mapping[str, str]) -> str:
    name = next((name for name in _ENDPOINT_SETTINGS if environment.get(name)), None)
    if name is None:
        return _AWS_ENDPOINT
    endpoint = environment[name].rstrip("/")
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    # Not shown in the message: a wrong one may hold keys.
    if not usable or parts.username or parts.path or parts.query or parts.fragment:
        raise StorageError(
            f"{name} is not an S3 endpoint; write http://host:port or https://host:port"
        )
    return endpoint


def _credentials() -> Provider:
    chain = ChainedProvider([EnvAWSProvider(), AWSConfigProvider()])
    try:
        keys = chain.retrieve()
    except ValueError:
        raise StorageError(
            "no S3 keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mount a credentials "
            "file and name it in AWS_SHARED_CREDENTIALS_FILE"
        ) from None
    except (OSError, configparser.Error):
        raise StorageError(
            "the credentials file (AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials) cannot "
            "be read; it must be an INI file with aws_access_key_id and aws_secret_access_key, "
            "where % is written %%"
        ) from None
    for value in (keys.access_key, keys.secret_key, keys.session_token or ""):
        if not value.isascii() or any(character.isspace() for character in value):
            raise StorageError(
                "the S3 keys hold a blank, a line end or a non-ASCII character; set "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN without it"
            )
    return chain


def _connections(environment: Mapping[str, str]) -> urllib3.PoolManager:
    name = next(
        (name for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE") if environment.get(name)), None
    )
    bundle = environment[name] if name else certifi.where()
    if not Path(bundle).is_file():
        raise StorageError(f"{name} names {bundle}, which is no file; give a PEM file")
    # A retry could report a conditional write of our own, that did arrive, as somebody else's.
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
        maxsize=10,
        cert_reqs="CERT_REQUIRED",
        ca_certs=bundle,
        retries=urllib3.Retry(False),
    )


def _metadata(content: bytes) -> DictType:
    return {_SHA256: hashlib.sha256(content).hexdigest()}


def _recorded(headers: Mapping[str, str]) -> str | None:
    wanted = _SHA256.lower()
    return next((value for name, value in headers.items() if name.lower() == wanted), None)


def _unreachable(error: HTTPError) -> str:
    if isinstance(error, NameResolutionError):
        return f"the host name cannot be resolved; check {_SETTING}"
    if isinstance(error, NewConnectionError):
        return f"no connection can be made; check {_SETTING} and that the server runs"
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {_CONNECT_TIMEOUT_S:g} s; check {_SETTING} and the network"
    if isinstance(error, SSLError):
        return f"TLS fails; check {_SETTING} (http or https) and the CA in AWS_CA_BUNDLE"
    if isinstance(error, ReadTimeoutError):
        return f"no answer within {_READ_TIMEOUT_S:g} s; check that the server is well"
    return f"the connection broke ({type(error).__name__}); check the server, then run it again"
