"""Talk to a Kubeflow Model Registry: old and new servers, bounded time, errors in one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from model_registry.core import ModelRegistryAPIClient
from model_registry.types import ListOptions
from mr_openapi import ApiClient, Configuration, ModelRegistryServiceApi
from mr_openapi.exceptions import ApiException, NotFoundException, OpenApiException

from lrf_core.errors import CredentialError
from lrf_core.redaction import one_line
from lrf_core.registry.base import RegistryError, UnreachableRegistryError
from lrf_core.secrets.credentials import token_from, token_in

_Answer = TypeVar("_Answer")

# The client asks for v1, which servers have since mid 2026; those before have v1alpha3 only.
_NEWEST = "/api/model_registry/v1/"
_OLDER = "/api/model_registry/v1alpha3/"

# A registry that is down must be noticed while a user still watches.
_TIMEOUT = aiohttp.ClientTimeout(total=15.0, sock_connect=5.0)

_TOKEN = "KUBEFLOW_REGISTRY_TOKEN"  # noqa: S105
_TOKEN_FILES = ("KUBEFLOW_REGISTRY_TOKEN_FILE", "KF_PIPELINES_SA_TOKEN_PATH")
_CA = "KUBEFLOW_REGISTRY_CA"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Connection:
    """The address of a registry, and what it takes to be let in.

    Attributes:
        address: `https://host:port`, maybe with a path below which the API is.
        ca: file with the certificates to trust, None for the system's.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    ca: str | None = None

    @classmethod
    def from_environment(cls, address: str) -> Connection:
        """Read the token and the CA's name from the environment and the files it names.

        KUBEFLOW_REGISTRY_TOKEN, else the file named by KUBEFLOW_REGISTRY_TOKEN_FILE or
        KF_PIPELINES_SA_TOKEN_PATH, else, and only for https, the pod's service account token;
        KUBEFLOW_REGISTRY_CA names a file of certificates to trust.

        Raises:
            RegistryError: a named file cannot be read.
        """
        ca = os.environ.get(_CA) or None
        if ca and not Path(ca).is_file():
            raise RegistryError(f"{_CA} names {ca}, which is no file; mount the CA's certificate")
        try:
            return cls(address, _token(secure=address.startswith("https://")), ca)
        except CredentialError as error:
            raise RegistryError(str(error)) from None

    def run(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Run to the end, also from inside of a running event loop, with errors explained.

        Raises:
            UnreachableRegistryError: no answer, a server error, or an answer cut short.
            RegistryError: the token or the request was refused, or this is no Model Registry.
        """
        with self._explained():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return asyncio.run(work)
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, work).result()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client for the newest version of the API that the server has.

        Raises:
            NotFoundException: the server has none of them.
        """
        api = _Api(self._configuration())
        try:
            client = Client(api)
            await _choose_version(client)
            yield client
        finally:
            await api.close()

    def _configuration(self) -> Configuration:
        return Configuration(host=self.address, access_token=self.token, ssl_ca_cert=self.ca)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except aiohttp.ClientSSLError as error:
            raise RegistryError(
                f"the certificate of {self.address} is not trusted ({self._shown(error)}); name "
                f"the CA's file in {_CA}"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else error
            raise UnreachableRegistryError(
                f"cannot reach the model registry at {self.address} ({self._shown(reason)}); "
                "check the address and run it again"
            ) from None
        except ApiException as error:
            raise self._refusal(error) from None
        except (OpenApiException, AssertionError) as error:
            raise self._foreign(error) from None

    def _refusal(self, error: ApiException) -> RegistryError:
        said = self._shown(error.body or error.reason or "no reason given")
        if error.status in (401, 403):
            asked = "refuses the token" if self.token else "wants a token"
            return RegistryError(
                f"the model registry at {self.address} {asked} ({error.status}); set {_TOKEN} or "
                f"mount a token and name its file in {_TOKEN_FILES[0]}"
            )
        if error.status == 404:
            return RegistryError(
                f"{self.address} has no Kubeflow Model Registry API ({said}); check the address"
            )
        if not error.status or error.status < 400:
            return self._foreign(error.reason)
        kind = UnreachableRegistryError if error.status >= 500 else RegistryError
        return kind(
            f"the model registry at {self.address} answered {error.status}: {said}; see its log"
        )

    def _foreign(self, reason: object) -> RegistryError:
        return RegistryError(
            f"{self.address} does not answer as a Kubeflow Model Registry does "
            f"({self._shown(reason)}); check the address, and that no login page is in the way"
        )

    def _shown(self, reason: object) -> str:
        return one_line(reason or type(reason).__name__)


class Client(ModelRegistryAPIClient):  # type: ignore[misc]
    """The client's own calls, all over one session: each has to load the system's certificates."""

    def __init__(self, api: _Api) -> None:
        super().__init__(api.configuration)
        self.api = api

    @asynccontextmanager
    async def get_client(self) -> AsyncIterator[ModelRegistryServiceApi]:
        yield ModelRegistryServiceApi(self.api)


async def _choose_version(client: Client) -> None:
    """The list of models is there always, so that 404 means that this version of the API is not."""
    try:
        await client.get_registered_models(ListOptions(limit=1))
    except NotFoundException:
        client.api.prefix = _OLDER
        await client.get_registered_models(ListOptions(limit=1))


class _Api(ApiClient):  # type: ignore[misc]
    """Requests end in bounded time, and go to one version of the API."""

    prefix = _NEWEST

    def param_serialize(self, method: str, resource_path: str, *args: Any, **kwargs: Any) -> Any:
        path = resource_path.replace(_NEWEST, self.prefix, 1)
        return super().param_serialize(method, path, *args, **kwargs)

    async def call_api(self, *args: Any, _request_timeout: Any = None, **kwargs: Any) -> Any:
        timeout = _request_timeout or _TIMEOUT
        return await super().call_api(*args, _request_timeout=timeout, **kwargs)

    def response_deserialize(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().response_deserialize(*args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            raise ApiException(status=0, reason=f"unreadable answer: {error}") from None


def _token(secure: bool) -> str | None:
    if given := token_in(_TOKEN):
        return given
    for setting in _TOKEN_FILES:
        if name := os.environ.get(setting):
            return token_from(Path(name), f"{setting} names it")
    # Others could read along on a plain connection, so a pod's identity is not sent unasked.
    mounted = _SERVICE_ACCOUNT / "token"
    return token_from(mounted, "the pod's own") if secure and mounted.is_file() else None
