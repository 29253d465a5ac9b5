"""Run workers as a TrainJob of Kubeflow Trainer, and wait until it is done."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import keras
import kubernetes.client
import urllib3

from lrf_core.artifacts import FinetuneRecord
from lrf_core.errors import EXIT_BAD_INPUT, EXIT_FAILURE, WorkerError
from lrf_core.kubernetes_api import TIMEOUT_S, connected, own_namespace, summarize_error
from lrf_core.spec import TrainJobSpec
from lrf_core.training.job import Job, read_result
from lrf_core.training.trainjob import GROUP, PLURAL, VERSION, train_job

_logger = logging.getLogger("lrf")
_Answer = TypeVar("_Answer")

_POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
# How often in a row the API may fail to answer while a job is followed.
_PATIENCE = 12


@dataclass(frozen=True)
class _Pod:
    """`exit_code` is None while it runs, or waits."""

    name: str
    state: str
    exit_code: int | None = None


def run_on_cluster(
    job: Job, model: keras.Model, teacher: keras.Model, settings: TrainJobSpec
) -> tuple[keras.Model, FinetuneRecord]:
    """Fine-tune by a TrainJob; the files of the job pass through `settings.folder`.

    Called again after an interruption, it follows the TrainJob that it finds.

    Raises:
        ClusterError: there is no Kubernetes API.
        WorkerError: the API refuses it, or a worker failed.
        ArtifactError: the folder cannot be used.
    """
    name = f"lrf-finetune-{job.digest[:12]}"
    folder = Path(settings.folder) / name
    job.write(folder, model, teacher)
    command = ["python", "-m", "lrf_core.stages.finetune_worker", str(folder)]
    run_train_job(name, command, job.settings.workers, settings)
    result = read_result(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def run_train_job(name: str, command: Sequence[str], workers: int, settings: TrainJobSpec) -> None:
    """Create a TrainJob, log what its pods do until it is complete, and delete it.

    Raises:
        ClusterError: there is no Kubernetes API.
        WorkerError: it failed; by the reason of the pod that did, with its exit code.
    """
    with connected("run finetune.trainjob on", "leave finetune.trainjob out") as client:
        namespace = settings.namespace or own_namespace()
        jobs = kubernetes.client.CustomObjectsApi(client)
        pods = kubernetes.client.CoreV1Api(client)
        where: dict[str, Any] = {
            "group": GROUP,
            "version": VERSION,
            "namespace": namespace,
            "plural": PLURAL,
        }
        manifest = train_job(name, namespace, command, workers, settings)
        try:
            jobs.create_namespaced_custom_object(**where, body=manifest, _request_timeout=TIMEOUT_S)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise _refused(error) from None
            _logger.info("TrainJob %s is there already, from an earlier run; following it", name)
        except urllib3.exceptions.HTTPError as error:
            raise _refused(error) from None
        try:
            _follow(jobs, pods, where, name, settings.poll_seconds)
        finally:
            _delete(jobs, where, name)


def _follow(jobs: Any, pods: Any, where: dict[str, Any], name: str, poll_s: float) -> None:
    told: dict[str, str] = {}
    while True:
        job = _patiently(
            lambda: jobs.get_namespaced_custom_object(
                **where, name=name, _request_timeout=TIMEOUT_S
            ),
            poll_s,
        )
        listed = _patiently(
            lambda: pods.list_namespaced_pod(
                where["namespace"],
                label_selector=f"{_POD_LABEL}={name}",
                _request_timeout=TIMEOUT_S,
            ),
            poll_s,
        )
        found = [_pod(pod) for pod in listed.items]
        for pod in found:
            if told.get(pod.name) != pod.state:
                _logger.info("%s: %s", pod.name, pod.state)
        told = {pod.name: pod.state for pod in found}
        for condition in job.get("status", {}).get("conditions", []):
            if condition["status"] == "True" and condition["type"] == "Complete":
                return
            if condition["status"] == "True" and condition["type"] == "Failed":
                raise _failure(name, condition, found)
        time.sleep(poll_s)


def _failure(name: str, condition: dict[str, Any], pods: Sequence[_Pod]) -> WorkerError:
    failed = [pod for pod in pods if pod.exit_code]
    if not failed:
        reason = condition.get("message") or condition.get("reason")
        return WorkerError(f"TrainJob {name} failed: {reason}")
    # An error that lrf raised on purpose, bad input say, before those that follow from it.
    known = [pod for pod in failed if pod.exit_code == EXIT_BAD_INPUT]
    pod = (known or failed)[0]
    return WorkerError(f"{pod.name}: {pod.state}", EXIT_BAD_INPUT if known else EXIT_FAILURE)


def _pod(pod: Any) -> _Pod:
    """What a pod does, by its container."""
    name = pod.metadata.name
    for status in pod.status.container_statuses or []:
        ended, waiting = status.state.terminated, status.state.waiting
        if ended is not None:
            said = ended.message or f"{ended.reason or 'ended'}, exit code {ended.exit_code}"
            return _Pod(name, " ".join(said.split()), ended.exit_code)
        if waiting is not None:
            said = f"{waiting.reason or 'waiting'} {waiting.message or ''}"
            return _Pod(name, " ".join(said.split()))
    for condition in pod.status.conditions or []:
        if condition.status == "False" and condition.type == "PodScheduled":
            return _Pod(name, f"not scheduled: {condition.message or condition.reason}")
    return _Pod(name, str(pod.status.phase or "pending").lower())


def _patiently(ask: Callable[[], _Answer], poll_s: float) -> _Answer:
    failures = 0
    while True:
        try:
            return ask()
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            failures += 1
            # What the API refuses (4xx), it refuses again.
            if failures == _PATIENCE or getattr(error, "status", 500) in range(400, 429):
                raise _refused(error) from None
            time.sleep(poll_s)


def _delete(jobs: Any, where: dict[str, Any], name: str) -> None:
    try:
        jobs.delete_namespaced_custom_object(
            **where, name=name, propagation_policy="Foreground", _request_timeout=TIMEOUT_S
        )
    except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
        if getattr(error, "status", None) != 404:
            _logger.warning("TrainJob %s is not deleted: %s", name, summarize_error(error))


def _refused(error: Exception) -> WorkerError:
    return WorkerError(
        f"the Kubernetes API refuses the TrainJob: {summarize_error(error)}; Kubeflow Trainer has "
        "to be there, and the service account may create, get and delete trainjobs and list pods",
        EXIT_BAD_INPUT,
    )
