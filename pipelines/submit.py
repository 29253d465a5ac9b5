"""Submit the pipeline to Kubeflow Pipelines, and follow the run to its verdict."""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import kfp
import kfp_server_api
import urllib3

from lrf_core.errors import BadInputError, LrfError, SpecError
from lrf_core.spec import Spec
from pipelines.compress import compress

TOKEN = "LRF_KFP_TOKEN"  # noqa: S105 - the name of the variable, not its value
POLL_S = 5.0

_CONNECT_S = 10.0
# How often in a row the API may fail to answer while a run is followed.
_PATIENCE = 12
_ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


class ClusterError(BadInputError):
    """The Kubeflow Pipelines API cannot be reached, or refuses the request."""


@dataclass(frozen=True)
class Submitted:
    """A run on a cluster. `url` is its page for people."""

    client: kfp.Client
    run_id: str
    url: str


def submit(
    spec: Spec,
    host: str,
    namespace: str | None,
    experiment: str,
    *,
    run_name: str | None = None,
    pipeline_root: str | None = None,
) -> Submitted:
    """Start a run.

    Args:
        spec: with paths as the components see them in their containers.
        host: address of the API, e.g. http://localhost:8888.
        namespace: None where the installation has only one.
        run_name: None for the pipeline's name and the time.
        pipeline_root: where what the steps pass on is kept; None for the installation's default.

    Raises:
        SpecError: the spec does not say where to publish.
        ClusterError: no API at the address, or it refuses the request.
    """
    if not spec.publish.to:
        raise SpecError(
            "publish.to is not set; on a cluster the folder of a step does not outlive it: set "
            "s3://bucket/prefix, or file:///dir on a volume that is mounted"
        )
    host = host.rstrip("/")
    with connected(host, namespace) as client:
        run = client.create_run_from_pipeline_func(
            compress,
            arguments={"spec": spec.model_dump_json()},
            run_name=run_name,
            experiment_name=experiment,
            namespace=namespace,
            pipeline_root=pipeline_root,
        )
    return Submitted(client, run.run_id, f"{host}/#/runs/details/{run.run_id}")


@contextmanager
def connected(host: str, namespace: str | None) -> Iterator[kfp.Client]:
    """A client of the API; what the API refuses meanwhile is a ClusterError.

    Raises:
        ClusterError: no API at the address, or it refuses a request.
    """
    host = host.rstrip("/")
    token = os.environ.get(TOKEN)
    _check_reachable(host, token)
    with _plain_client(), _refusals(host):
        yield kfp.Client(host=host, namespace=namespace or "kubeflow", existing_token=token)


def follow(submitted: Submitted, say: Callable[[str], None], poll_s: float = POLL_S) -> bool:
    """Wait for a run to end; whether the candidate passed the gate and was published.

    Args:
        say: called with a line whenever the state of a step changes.

    Raises:
        ClusterError: the API stopped answering.
        LrfError: the run failed or was canceled.
    """
    told: dict[str, str] = {}
    while True:
        run = _patiently(submitted, poll_s)
        steps = _steps_of(run)
        for name, state in steps.items():
            if told.get(name) != state:
                say(f"{name}: {state.lower()}")
        told = steps
        if run.state in _ENDED:
            return _passed(run, steps, submitted.url)
        time.sleep(poll_s)


def _passed(run: Any, steps: dict[str, str], url: str) -> bool:
    if run.state != "SUCCEEDED":
        failed = [name for name, state in steps.items() if state == "FAILED"]
        where = f" in {', '.join(failed)}" if failed else ""
        raise LrfError(f"the run {run.state.lower()}{where}; the step's log says why: {url}")
    if not steps:
        raise LrfError(f"the run succeeded, but the API does not list its steps; see {url}")
    return steps.get("publish") == "SUCCEEDED"


def _steps_of(run: Any) -> dict[str, str]:
    """State of each of our steps, by name; shards share one, plans too, and the worst counts."""
    names = ("analyze", "explore", "merge", "decompose", "finetune", "validate", "publish")
    found: dict[str, str] = {}
    for task in (run.run_details.task_details or []) if run.run_details else []:
        name = (task.display_name or "").lower()
        if name in names and task.state and found.get(name) != "FAILED":
            found[name] = task.state
    return found


def _patiently(submitted: Submitted, poll_s: float) -> Any:
    failures = 0
    while True:
        try:
            return submitted.client.get_run(submitted.run_id)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            failures += 1
            if failures == _PATIENCE:
                raise ClusterError(
                    f"the API stopped answering ({_reason(error)}); the run goes on: "
                    f"{submitted.url}"
                ) from None
            time.sleep(poll_s)


def _check_reachable(host: str, token: str | None) -> None:
    """Ask for the API's health once; kfp.Client would try for half a minute, with tracebacks."""
    if not host.startswith(("http://", "https://")):
        raise ClusterError(f"--host {host} must start with http:// or https://")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib3.PoolManager(timeout=_CONNECT_S, retries=False) as pool:
            answer = pool.request("GET", f"{host}/apis/v2beta1/healthz", headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise ClusterError(
            f"cannot reach Kubeflow Pipelines at {host}: {_reason(error)}; check --host and that "
            "the API is up"
        ) from None
    if answer.status in (301, 302, 401, 403):
        raise ClusterError(
            f"{host} does not let us in (HTTP {answer.status}); put a token into {TOKEN}"
        )
    if answer.status != 200:
        raise ClusterError(
            f"{host} answers HTTP {answer.status} where Kubeflow Pipelines would say that it is "
            "healthy; check --host"
        )


@contextmanager
def _refusals(host: str) -> Iterator[None]:
    try:
        yield
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise ClusterError(f"{host} refuses the run: {_reason(error)}") from None


@contextmanager
def _plain_client() -> Iterator[None]:
    """Without what kfp.Client prints and warns of on every use."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", "This client only works with Kubeflow Pip", FutureWarning)
        yield


def _reason(error: Exception) -> str:
    body = getattr(error, "body", None) or getattr(error, "reason", None) or error
    return " ".join(str(body).split())[:200]
