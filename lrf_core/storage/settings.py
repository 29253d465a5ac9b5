"""Where the S3 server is and how it is spoken to, from the environment."""

from __future__ import annotations

import functools
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio

from lrf_core.errors import StorageError
from lrf_core.storage.keys import provider_of_keys

AWS_ENDPOINT = "https://s3.amazonaws.com"
ENDPOINT = "LRF_S3_ENDPOINT"
_ENDPOINTS = (ENDPOINT, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ADDRESSING = "LRF_S3_ADDRESSING"
_RETRY = "LRF_S3_RETRY_S"
_RETRY_S = 30.0

# A server that is down must be noticed while a user still watches.
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
# Connections that are kept: the threads of a transfer, and a few more stores' worth.
_CONNECTIONS = 16


@dataclass(frozen=True)
class Server:
    """An S3 server.

    Attributes:
        endpoint: its address, for messages.
        client: speaks to it and never tries again by itself.
        patience_s: how long to try again while it fails in passing.
    """

    endpoint: str
    client: Minio
    patience_s: float


def server_named_by(environment: Mapping[str, str]) -> Server:
    """The server that the settings name; see docs/storage.md. No request is made to it.

    Raises:
        StorageError: a setting is missing or unusable.
    """
    endpoint = _endpoint(environment)
    address = urlsplit(endpoint)
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if not region and endpoint != AWS_ENDPOINT:
        region = "us-east-1"  # what S3-compatible servers take when they have no regions
    client = Minio(
        address.netloc,
        secure=address.scheme == "https",
        region=region,
        credentials=provider_of_keys(environment),
        http_client=_connections(environment),
    )
    _choose_addressing(client, environment)
    return Server(endpoint, client, _patience(environment))


def _endpoint(environment: Mapping[str, str]) -> str:
    name = next((name for name in _ENDPOINTS if environment.get(name)), None)
    if name is None:
        return AWS_ENDPOINT
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


def _choose_addressing(client: Minio, environment: Mapping[str, str]) -> None:
    addressing = environment.get(_ADDRESSING) or "auto"
    if addressing == "virtual":
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif addressing == "path":
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif addressing != "auto":  # the client's own choice: virtual for AWS, else path
        raise StorageError(
            f"{_ADDRESSING} is {addressing!r:.40}; write path (https://host/bucket), virtual "
            "(https://bucket.host) or auto"
        )


def _patience(environment: Mapping[str, str]) -> float:
    given = environment.get(_RETRY)
    if not given:
        return _RETRY_S
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:
        raise StorageError(f"{_RETRY} is {given!r:.40}; write seconds from 0 (never) to 3600")
    return seconds


@functools.lru_cache
def _holds_certificates(bundle: str, modified_ns: int) -> bool:
    """Read once: it takes longer than a request."""
    try:
        ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError):
        return False
    return True


def _connections(environment: Mapping[str, str]) -> urllib3.PoolManager:
    name = next(
        (name for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE") if environment.get(name)), None
    )
    bundle = environment[name] if name else certifi.where()
    if not Path(bundle).is_file():
        raise StorageError(f"{name} names {bundle}, which is no file; give a PEM file")
    if not _holds_certificates(bundle, Path(bundle).stat().st_mtime_ns):
        raise StorageError(f"{name} names {bundle}, which holds no certificate; give a PEM file")
    # A retry down there could not tell a conditional write of our own, that did arrive, from
    # somebody else's; lrf_core.storage.retry does.
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        maxsize=_CONNECTIONS,
        cert_reqs="CERT_REQUIRED",
        ca_certs=bundle,
        retries=urllib3.Retry(False),
    )
