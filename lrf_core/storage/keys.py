"""The keys of S3: from the environment, mounted files, a Kubernetes secret, or AWS' own file."""

from __future__ import annotations

import base64
import binascii
import configparser
import re
from collections.abc import Mapping
from pathlib import Path

from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    Provider,
    StaticProvider,
)
from urllib3.exceptions import HTTPError

from lrf_core.errors import ClusterError, StorageError
from lrf_core.redaction import register

FOLDER, SECRET = "LRF_S3_KEYS", "LRF_S3_SECRET"

# How people name the three in secrets: Kubeflow Pipelines, KServe, MinIO's operator.
_ACCESS_KEY = ("accesskey", "AWS_ACCESS_KEY_ID", "aws_access_key_id", "accessKey", "access_key")
_SECRET_KEY = (
    "secretkey",
    "AWS_SECRET_ACCESS_KEY",
    "aws_secret_access_key",
    "secretKey",
    "secret_key",
)
_TOKEN = ("token", "AWS_SESSION_TOKEN", "aws_session_token", "sessionToken", "session_token")
_NAMES = (*_ACCESS_KEY, *_SECRET_KEY, *_TOKEN)
_SECRET_NAME = re.compile(r"([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)")
_API_TIMEOUT_S = (5.0, 15.0)


def provider_of_keys(environment: Mapping[str, str]) -> Provider:
    """Who gives the keys, read again: whoever opens a store after a rotation has the new ones.

    Args:
        environment: LRF_S3_SECRET (`namespace/name` of a Kubernetes secret), else LRF_S3_KEYS (a
            folder with a file for each, as a secret is mounted), else AWS_ACCESS_KEY_ID,
            AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, else the file of AWS' own tools.

    Raises:
        StorageError: no keys, two sources of keys, or keys that cannot be used.
    """
    secret, folder = environment.get(SECRET), environment.get(FOLDER)
    if secret and folder:
        raise StorageError(f"both {SECRET} and {FOLDER} are set; unset one")
    if secret:
        provider: Provider = _named(_of_kubernetes(secret), f"the secret {secret} ({SECRET})")
        source = f"the secret in {SECRET}"
    elif folder:
        provider = _named(_in_folder(Path(folder)), f"the folder {folder} ({FOLDER})")
        source = f"the files in {FOLDER}"
    else:
        provider = _Cleaned(ChainedProvider([EnvAWSProvider(), AWSConfigProvider()]))
        source = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
    _check(_retrieved(provider), source)
    return provider


class _Cleaned(Provider):
    """The keys of another provider without the line ends that mounted secrets end with."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def retrieve(self) -> Credentials:
        keys = self._provider.retrieve()
        token = keys.session_token
        return Credentials(
            keys.access_key.strip("\r\n"),
            keys.secret_key.strip("\r\n"),
            token.strip("\r\n") if token else None,
        )


def _retrieved(provider: Provider) -> Credentials:
    try:
        return provider.retrieve()
    except ValueError:
        raise StorageError(
            "no S3 keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, mount a secret and name "
            f"its folder in {FOLDER}, or name a credentials file in AWS_SHARED_CREDENTIALS_FILE"
        ) from None
    except (OSError, configparser.Error):
        raise StorageError(
            "the credentials file (AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials) cannot "
            "be read; it must be an INI file with aws_access_key_id and aws_secret_access_key, "
            "where % is written %%"
        ) from None


def _check(keys: Credentials, source: str) -> None:
    register(keys.secret_key, keys.session_token)
    for value in (keys.access_key, keys.secret_key, keys.session_token or ""):
        if not value.isascii() or any(character.isspace() for character in value):
            raise StorageError(
                "the S3 keys hold a blank, a line end or a non-ASCII character; give "
                f"{source} without it"
            )


def _named(found: Mapping[str, str], where: str) -> Provider:
    def value(names: tuple[str, ...]) -> str | None:
        return next((found[name] for name in names if found.get(name)), None)

    access_key, secret_key = value(_ACCESS_KEY), value(_SECRET_KEY)
    if not access_key or not secret_key:
        missing = " and ".join(
            names[0]
            for names, given in ((_ACCESS_KEY, access_key), (_SECRET_KEY, secret_key))
            if not given
        )
        raise StorageError(
            f"{where} has no {missing}; it must hold accesskey and secretkey, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY"
        )
    return StaticProvider(access_key, secret_key, value(_TOKEN))


def _in_folder(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise StorageError(
            f"{FOLDER} names {folder}, which is no folder; mount the secret there, or correct it"
        )
    try:
        # A file ends in a line end more often than not, and no key does.
        return {
            name: (folder / name).read_text("utf-8").rstrip("\r\n")
            for name in _NAMES
            if (folder / name).is_file()
        }
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"the keys in {folder} ({FOLDER}) cannot be read: {reason}") from None
    except UnicodeError:
        raise StorageError(
            f"the keys in {folder} ({FOLDER}) are no text; mount them again"
        ) from None


def _of_kubernetes(secret: str) -> dict[str, str]:
    match = _SECRET_NAME.fullmatch(secret)
    if match is None:
        raise StorageError(f"{SECRET} names no Kubernetes secret; write namespace/name")
    # It takes a second to import, and few need it.
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException

    from lrf_core.kubernetes_api import connected

    where = f"the secret {secret} ({SECRET})"
    try:
        with connected(f"read {where} from", "mount the secret") as client:
            found = CoreV1Api(client).read_namespaced_secret(
                match[2], match[1], _request_timeout=_API_TIMEOUT_S
            )
        return {
            name: base64.b64decode(value).decode().rstrip("\r\n")
            for name, value in (found.data or {}).items()
            if name in _NAMES
        }
    except ClusterError as error:
        raise StorageError(str(error)) from None
    except ApiException as error:
        hint = {
            401: "Kubernetes does not know who asks; check the service account or the kubeconfig",
            403: "not allowed; give the service account the verb get on this secret",
            404: "there is none; create it or correct the name",
        }.get(error.status, f"Kubernetes answers with HTTP status {error.status}")
        raise StorageError(f"{where} cannot be read: {hint}") from None
    except (HTTPError, OSError) as error:
        raise StorageError(
            f"{where} cannot be read: Kubernetes cannot be reached ({type(error).__name__}); "
            "check KUBECONFIG and the network"
        ) from None
    except (binascii.Error, UnicodeError):
        raise StorageError(f"{where} does not hold text; create it again") from None
