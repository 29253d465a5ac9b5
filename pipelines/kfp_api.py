"""The API of Kubeflow Pipelines: reached once before it is used, its refusals in one line."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import kfp
import kfp.client
import kfp_server_api
import urllib3

from lrf_core.errors import EXIT_FAILURE, BadInputError, LrfError
from lrf_core.redaction import one_line
from lrf_core.secrets.credentials import token_from, token_in

TOKEN = "LRF_KFP_TOKEN"  # noqa: S105 - the name of the variable, not its value
POLL_S = 5.0

_CONNECT_S = 10.0
# How often in a row the API may fail to answer while a run is followed.
_PATIENCE = 12

_Answer = TypeVar("_Answer")


class PipelineApiError(BadInputError):
    """The Kubeflow Pipelines API rejects a request."""


class UnreachablePipelineApiError(PipelineApiError):
    """The Kubeflow Pipelines API does not answer; the same may succeed later."""

    exit_code = EXIT_FAILURE


class NoSuchRunError(PipelineApiError):
    """The API knows no run of this id: somebody removed it."""


class RunError(LrfError):
    """A run failed or was canceled. `exit_code` is that of the step, where the API tells it."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Submitted:
    """A run on a cluster.

    Attributes:
        url: its page for people.
        found: it was there already, and was not started again.
    """

    client: kfp.Client
    run_id: str
    url: str
    found: bool = False


@contextmanager
def connected(host: str, namespace: str | None) -> Iterator[kfp.Client]:
    """A client of the API; what the API refuses meanwhile is a PipelineApiError.

    The token is that of LRF_KFP_TOKEN, or in a pod the one that Kubernetes projects into it and
    renews, for multi-user installations.

    Raises:
        PipelineApiError: no API at the address, or it refuses a request.
        CredentialError: a token that cannot be sent.
    """
    host, token = host.rstrip("/"), token_in(TOKEN)
    projected = None if token else _projected_token()
    own = token_from(projected, "the pod's own") if projected else None
    _check_reachable(host, token or own)
    with _plainly(), _refusals(host):
        yield kfp.Client(
            host=host,
            namespace=namespace or "kubeflow",
            existing_token=token,
            credentials=projected
            and kfp.client.ServiceAccountTokenVolumeCredentials(path=str(projected)),
        )


def _projected_token() -> Path | None:
    given = os.environ.get(kfp.client.KF_PIPELINES_SA_TOKEN_ENV)
    file = Path(given or kfp.client.KF_PIPELINES_SA_TOKEN_PATH)
    return file if file.is_file() else None


def page_of(host: str, run_id: str) -> str:
    """The run's page for people."""
    return f"{host.rstrip('/')}/#/runs/details/{run_id}"


def poll_with_retries(ask: Callable[[], _Answer], where: str, poll_s: float = POLL_S) -> _Answer:
    """Ask again where the API does not answer.

    Args:
        where: the run's page.

    Raises:
        NoSuchRunError: it knows no such run.
        PipelineApiError: it has not answered for a while, or refuses.
    """
    failures = 0
    while True:
        try:
            return ask()
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            status = getattr(error, "status", None)
            if status in (400, 401, 403, 404):
                kind = NoSuchRunError if status == 404 else PipelineApiError
                raise kind(f"the API does not show the run {where}: {said(error)}") from None
            failures += 1
            if failures == _PATIENCE:
                raise UnreachablePipelineApiError(
                    f"the API stopped answering ({said(error)}); the run goes on: {where}"
                ) from None
            time.sleep(poll_s)


@contextmanager
def _refusals(host: str) -> Iterator[None]:
    """What the API refuses, as one line."""
    try:
        yield
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise PipelineApiError(f"{host} refuses the run: {said(error)}") from None


@contextmanager
def _plainly() -> Iterator[None]:
    """Without what kfp.Client prints and warns of on every use."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "This client only works with Kubeflow Pip", FutureWarning)
        yield


def said(error: Exception) -> str:
    """What an error of the client says, on one line."""
    body = getattr(error, "body", None) or getattr(error, "reason", None) or error
    return one_line(body, 200)


def _check_reachable(host: str, token: str | None) -> None:
    """Ask for the API's health once; kfp.Client would try for half a minute, with tracebacks."""
    if not host.startswith(("http://", "https://")):
        raise PipelineApiError(f"--host {host} must start with http:// or https://")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib3.PoolManager(timeout=_CONNECT_S, retries=False) as pool:
            answer = pool.request("GET", f"{host}/apis/v2beta1/healthz", headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise UnreachablePipelineApiError(
            f"cannot reach Kubeflow Pipelines at {host}: {said(error)}; check --host and that "
            "the API is up"
        ) from None
    if answer.status in (301, 302, 401, 403):
        raise PipelineApiError(
            f"{host} does not let us in (HTTP {answer.status}); put a token into {TOKEN}"
        )
    if answer.status != 200:
        raise PipelineApiError(
            f"{host} answers HTTP {answer.status} where Kubeflow Pipelines would say that it is "
            "healthy; check --host"
        )
