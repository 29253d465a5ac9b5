from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import trainjob_schema
from json_api import Asked, json_api, kubeconfig
from tiny import tiny_cnn, tiny_data

from lrf_core.data import open_data
from lrf_core.errors import EXIT_BAD_INPUT, EXIT_FAILURE, ClusterError, WorkerError
from lrf_core.models.load import model_digest
from lrf_core.spec import FinetuneSpec, TrainJobSpec
from lrf_core.stages.finetune import finetune
from lrf_core.training.cluster import run_train_job
from lrf_core.training.launch import free_address
from lrf_core.training.trainjob import train_job

SETTINGS = TrainJobSpec(
    image="registry.example/lrf:0.1.0",
    folder="/models/finetune",
    claims={"models": "/models", "data": "/data"},
    namespace="team",
    resources={"cpu": "4", "memory": "8Gi"},
    env={"AWS_ENDPOINT_URL": "http://minio:9000"},
    secrets={"AWS_ACCESS_KEY_ID": "minio/accesskey"},
    poll_seconds=0.05,
)
COMMAND = ["python", "-m", "lrf_core.stages.finetune_worker", "/models/finetune/lrf-finetune-0"]
JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
PODS = "/api/v1/namespaces/team/pods"
COMPLETE = [{"type": "Complete", "status": "True"}]
FAILED = [{"type": "Failed", "status": "True", "message": "jobset failed due to one job"}]


@pytest.mark.parametrize("settings", [SETTINGS, TrainJobSpec(image="lrf", folder="/models")])
def test_the_manifest_is_one_that_the_api_accepts(settings: TrainJobSpec) -> None:
    manifest = train_job("lrf-finetune-0", "team", COMMAND, 3, settings)
    made = trainjob_schema.TrainJob.model_validate(manifest)
    assert made.spec.trainer.numNodes == 3
    assert made.spec.trainer.command == COMMAND
    assert made.spec.trainer.image == settings.image
    assert made.spec.runtimeRef.name == "jax-distributed"
    assert json.loads(json.dumps(manifest)) == manifest


def test_the_workers_see_volumes_and_secrets() -> None:
    made = trainjob_schema.TrainJob.model_validate(train_job("a", "team", COMMAND, 2, SETTINGS))
    (patch,) = made.spec.runtimePatches
    (job,) = patch.trainingRuntimeSpec.template.spec.replicatedJobs
    pod = job.template.spec.template.spec
    (container,) = pod.containers
    assert (job.name, container.name) == ("node", "node")
    claims = {volume.name: volume.persistentVolumeClaim.claimName for volume in pod.volumes}
    mounted = {claims[mount.name]: mount.mountPath for mount in container.volumeMounts}
    assert mounted == SETTINGS.claims
    env = {variable.name: variable for variable in made.spec.trainer.env}
    assert env["AWS_ENDPOINT_URL"].value == "http://minio:9000"
    key = env["AWS_ACCESS_KEY_ID"].valueFrom.secretKeyRef
    assert (key.name, key.key) == ("minio", "accesskey")
    assert made.spec.trainer.resourcesPerNode.limits == SETTINGS.resources


def test_a_secret_is_named_and_not_given() -> None:
    with pytest.raises(pydantic.ValidationError, match="secrets"):
        TrainJobSpec(image="lrf", folder="/models", secrets={"AWS_SECRET_ACCESS_KEY": "hunter2"})


Look = tuple[list[dict[str, str]], list[dict[str, Any]]]


def one_by_one(*looks: Look) -> Callable[[int], Look]:
    return lambda number: looks[min(number, len(looks)) - 1]


@dataclasses.dataclass
class Cluster:
    """An API server that knows TrainJobs and pods.

    Attributes:
        looks: what the nth look at the job finds: its conditions and its pods.
        jobs: those that are there, by name.
        refuses: statuses that the next requests are answered with.
        ran: called with a job, once it is created.
    """

    looks: Callable[[int], Look]
    jobs: dict[str, Any] = dataclasses.field(default_factory=dict)
    requests: list[str] = dataclasses.field(default_factory=list)
    refuses: list[int] = dataclasses.field(default_factory=list)
    ran: Any = lambda job: None
    seen: int = 0

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Status and content."""
        self.requests.append(f"{method} {path}")
        if self.refuses:
            return self.refuses.pop(0), {"message": "not today"}
        name = path.rsplit("/", 1)[-1]
        if (method, path) == ("POST", JOBS):
            try:
                made = trainjob_schema.TrainJob.model_validate(body)
            except pydantic.ValidationError as error:
                return 422, {"message": str(error)}
            if made.metadata.name in self.jobs:
                return 409, {"reason": "AlreadyExists"}
            self.jobs[made.metadata.name] = body
            self.ran(body)
            return 201, body
        if (method, path) == ("GET", PODS):
            (selector,) = query["labelSelector"]
            assert selector.removeprefix("jobset.sigs.k8s.io/jobset-name=") in self.jobs
            _, pods = self.looks(self.seen)
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
        if not path.startswith(f"{JOBS}/") or name not in self.jobs:
            return 404, {"reason": "NotFound"}
        if method == "GET":
            self.seen += 1
            conditions, _ = self.looks(self.seen)
            status = {"conditions": conditions} if conditions else {}
            return 200, {**self.jobs[name], "status": status}
        if method == "DELETE":
            assert query["propagationPolicy"] == ["Foreground"]
            return 200, self.jobs.pop(name)
        return 405, {}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Served over HTTP, with a KUBECONFIG that leads there."""
    state = Cluster(one_by_one((COMPLETE, [])))

    def answer(asked: Asked) -> tuple[int, Any]:
        return state.answer(asked.method, asked.path, asked.query, asked.body)

    with json_api(answer) as address:
        (tmp_path / "kubeconfig").write_text(kubeconfig(address, namespace="team"))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield state


def pod(name: str, **state: Any) -> dict[str, Any]:
    status = {"name": "node", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    return {
        "metadata": {"name": name},
        "status": {"phase": "Running", "containerStatuses": [{**status, "state": state}]},
    }


def ended(exit_code: int, message: str = "") -> dict[str, Any]:
    return {"exitCode": exit_code, "reason": "Error", "message": message}


def test_a_job_is_created_followed_and_deleted(cluster: Cluster, caplog) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    cluster.looks = one_by_one(
        ([], []),
        ([], [pod("a-node-0-0-x", waiting=waiting)]),
        ([], [pod("a-node-0-0-x", running={})]),
        ([], [pod("a-node-0-0-x", running={})]),
        (COMPLETE, [pod("a-node-0-0-x", terminated={"exitCode": 0, "reason": "Completed"})]),
    )
    with caplog.at_level(logging.INFO, logger="lrf"):
        run_train_job("a", COMMAND, 2, SETTINGS)
    assert caplog.messages == [
        "a-node-0-0-x: ImagePullBackOff no such image",
        "a-node-0-0-x: running",
        "a-node-0-0-x: Completed, exit code 0",
    ]
    assert cluster.requests[0] == f"POST {JOBS}"
    assert cluster.requests[-1] == f"DELETE {JOBS}/a"
    assert cluster.jobs == {}


def test_the_reason_of_a_failure_is_that_of_the_pod(cluster: Cluster) -> None:
    pods = [
        pod("a-node-0-0-x", terminated=ended(1, "unexpected XlaRuntimeError: peer is gone")),
        pod("a-node-0-1-y", terminated=ended(EXIT_BAD_INPUT, "no data at /data/digits.npz")),
    ]
    cluster.looks = one_by_one((FAILED, pods))
    with pytest.raises(WorkerError, match="a-node-0-1-y: no data at /data/digits") as caught:
        run_train_job("a", COMMAND, 2, SETTINGS)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert cluster.jobs == {}


def test_a_job_that_fails_without_pods_is_quoted(cluster: Cluster) -> None:
    cluster.looks = one_by_one((FAILED, []))
    with pytest.raises(WorkerError, match="TrainJob a failed: jobset failed due to") as caught:
        run_train_job("a", COMMAND, 2, SETTINGS)
    assert caught.value.exit_code == EXIT_FAILURE


def test_a_job_that_is_there_already_is_followed(cluster: Cluster, caplog) -> None:
    cluster.jobs["a"] = train_job("a", "team", COMMAND, 2, SETTINGS)
    own_namespace = SETTINGS.model_copy(update={"namespace": None})
    with caplog.at_level(logging.INFO, logger="lrf"):
        run_train_job("a", COMMAND, 2, own_namespace)
    assert "TrainJob a is there already" in caplog.text
    assert cluster.jobs == {}


def test_the_api_may_fail_to_answer_for_a_while(cluster: Cluster) -> None:
    cluster.ran = lambda job: cluster.refuses.extend([503, 500])
    run_train_job("a", COMMAND, 2, SETTINGS)
    assert cluster.requests.count(f"GET {JOBS}/a") == 3


def test_a_refusal_says_what_is_needed(cluster: Cluster) -> None:
    cluster.refuses = [403]
    expected = "refuses the TrainJob.*not today.*create, get and delete trainjobs"
    with pytest.raises(WorkerError, match=expected) as caught:
        run_train_job("a", COMMAND, 2, SETTINGS)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert cluster.requests == [f"POST {JOBS}"]


def test_without_a_cluster_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"no Kubernetes API to run finetune\.trainjob on"):
        run_train_job("a", COMMAND, 2, SETTINGS)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="workers need lrf[jax]")
def test_the_stage_runs_as_a_trainjob(cluster: Cluster, tmp_path: Path) -> None:
    """Each pod is a process here."""
    data, file = tiny_data(128, 64), tmp_path / "tiny.npz"
    (x_train, y_train), (x_test, y_test) = data.train.arrays(), data.test.arrays()
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    teacher, student = tiny_cnn(residual=False), tiny_cnn(residual=False, seed=1)
    trainjob = SETTINGS.model_copy(update={"folder": str(tmp_path / "shared")})
    settings = FinetuneSpec(epochs=1, batch_size=32, workers=2, trainjob=trainjob)

    def started(job: dict[str, Any]) -> None:
        python, *arguments = job["spec"]["trainer"]["command"]
        assert python == "python"
        for rank in range(job["spec"]["trainer"]["numNodes"]):
            pods.append(subprocess.Popen([sys.executable, *arguments], env=environment(rank)))

    def environment(rank: int) -> dict[str, str]:
        return {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_PROCESS_ID": str(rank),
            "JAX_NUM_PROCESSES": "2",
            "JAX_COORDINATOR_ADDRESS": address,
        }

    pods: list[subprocess.Popen[bytes]] = []
    address, cluster.ran = free_address(), started

    def looks(_: int) -> Look:
        codes = [process.poll() for process in pods]
        states = [{"terminated": ended(code)} if code else {"running": {}} for code in codes]
        listed = [pod(f"node-0-{rank}", **state) for rank, state in enumerate(states)]
        if any(codes):
            return FAILED, listed
        return COMPLETE if codes == [0, 0] else [], listed

    cluster.looks = looks
    try:
        trained, record = finetune(
            student, teacher, open_data(str(file), teacher), settings=settings
        )
    finally:
        for process in pods:
            process.kill()
            process.wait()
    assert model_digest(trained) == record.after_digest
    assert record.steps == 3
    assert list((tmp_path / "shared").iterdir()) == []
