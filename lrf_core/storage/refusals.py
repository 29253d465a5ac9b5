"""What S3 and the network answer, as one line for a user."""

from __future__ import annotations

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from lrf_core.errors import StorageError, UnreachableStorageError
from lrf_core.storage import settings
from lrf_core.storage.base import MissingObjectError

# Codes of an object that is not there; of a key to match that is gone, to some servers.
MISSING = ("NoSuchKey", "NoSuchVersion", "ResourceNotFound")


class ChangedObjectError(Exception):
    """Somebody wrote the object while it was being read in parts."""


# What an attempt at a request raises.
FAILURES = (MinioException, HTTPError, ChangedObjectError)

_REFUSED_KEYS = {
    "AccessDenied": "the keys are refused or do not allow this",
    "InvalidAccessKeyId": "the access key is unknown there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid there",
    "RequestTimeTooSkewed": "the clocks of this machine and the server differ",
}


def refusal(error: Exception, endpoint: str, bucket: str, url: str) -> StorageError:
    """The error to raise in place of one of FAILURES.

    Only codes and causes are passed on: a server's own words may repeat a session token.

    Args:
        url: of the object that the request was about.
    """
    where = f"S3 at {endpoint}, bucket '{bucket}'"
    if isinstance(error, S3Error):
        return _by_code(error, where, endpoint, bucket, url)
    if isinstance(error, InvalidResponseError):
        return StorageError(
            f"{where}: the answer is not that of an S3 server; check that {settings.ENDPOINT} is "
            "the address and port of its S3 interface"
        )
    if isinstance(error, ServerError):
        return UnreachableStorageError(
            f"{where}: the server failed with HTTP status {error.status_code}; see its log, "
            "then run it again"
        )
    if isinstance(error, ChangedObjectError):
        return UnreachableStorageError(
            f"{url} is written again and again while it is read; run it again"
        )
    if isinstance(error, HTTPError):
        return UnreachableStorageError(f"{where}: {_unreachable(error)}")
    return StorageError(f"{where}: {type(error).__name__}; see the server's log")


def no_bucket(endpoint: str, bucket: str) -> StorageError:
    """The error to raise where the bucket is not there."""
    return StorageError(f"S3 at {endpoint} has no bucket '{bucket}'; create it or correct the name")


def _by_code(error: S3Error, where: str, endpoint: str, bucket: str, url: str) -> StorageError:
    if error.code in MISSING:
        return MissingObjectError(f"nothing at {url} ({endpoint}); check the key")
    if error.code == "NoSuchBucket":
        return no_bucket(endpoint, bucket)
    if error.code in _REFUSED_KEYS:
        return StorageError(
            f"{where}: {_REFUSED_KEYS[error.code]} ({error.code}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the file or secret that holds the "
            "keys, and what the keys may do"
        )
    return StorageError(
        f"{where}: the server refused with {error.code}; check AWS_REGION, what the keys may "
        "do, and the server's log"
    )


def _unreachable(error: HTTPError) -> str:
    setting = settings.ENDPOINT
    if isinstance(error, NameResolutionError):
        return f"the host name cannot be resolved; check {setting}"
    if isinstance(error, NewConnectionError):
        return f"no connection can be made; check {setting} and that the server runs"
    if isinstance(error, ConnectTimeoutError):
        limit = settings.CONNECT_TIMEOUT_S
        return f"no connection within {limit:g} s; check {setting} and the network"
    if isinstance(error, SSLError):
        return f"TLS fails; check {setting} (http or https) and the CA in AWS_CA_BUNDLE"
    if isinstance(error, ReadTimeoutError):
        return f"no answer within {settings.READ_TIMEOUT_S:g} s; check that the server is well"
    return f"the connection broke ({type(error).__name__}); check the server, then run it again"
