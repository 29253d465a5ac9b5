"""The manifest of a TrainJob: workers of fine-tuning as Kubeflow Trainer runs them.

References:
    pkg/apis/trainer/v1alpha1/trainjob_types.go in github.com/kubeflow/trainer, v2.3.0. Before v2.2,
    `runtimePatches` was `podTemplateOverrides`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lrf_core.spec import TrainJobSpec

GROUP, VERSION, PLURAL, KIND = "trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"
# Both, the replicated job and its container, are called so in the runtimes that Trainer ships.
_NODE = "node"
_MANAGER = "lrf/finetune"


def train_job(
    name: str,
    namespace: str,
    command: Sequence[str],
    workers: int,
    settings: TrainJobSpec,
) -> dict[str, Any]:
    """A TrainJob, as the API takes it.

    The runtime's jax policy gives each worker its number, how many there are, and the address of
    the first.

    Args:
        name: a DNS label, at most 63 letters.
        command: of every worker.
    """
    trainer: dict[str, Any] = {
        "image": settings.image,
        "command": list(command),
        "numNodes": workers,
        "env": _environment(settings.env, settings.secrets),
    }
    if settings.resources:
        amounts = dict(settings.resources)
        trainer["resourcesPerNode"] = {"requests": amounts, "limits": amounts}
    spec: dict[str, Any] = {
        "runtimeRef": {
            "apiGroup": GROUP,
            "kind": "ClusterTrainingRuntime",
            "name": settings.runtime,
        },
        "trainer": trainer,
    }
    if settings.claims:
        spec["runtimePatches"] = [_mounting(settings.claims)]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "lrf"},
        },
        "spec": spec,
    }


def _environment(plain: Mapping[str, str], secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in sorted(plain.items())]
    for variable, place in sorted(secrets.items()):
        name, _, key = place.partition("/")
        reference = {"secretKeyRef": {"name": name, "key": key}}
        found.append({"name": variable, "valueFrom": reference})
    return found


def _mounting(claims: Mapping[str, str]) -> dict[str, Any]:
    """A patch of the runtime: the trainer's container with volumes in it."""
    volumes, mounts = [], []
    for index, (claim, path) in enumerate(sorted(claims.items())):
        volume = f"lrf-{index}"
        volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": volume, "mountPath": path})
    pod = {"volumes": volumes, "containers": [{"name": _NODE, "volumeMounts": mounts}]}
    job = {"name": _NODE, "template": {"spec": {"template": {"spec": pod}}}}
    runtime = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {"manager": _MANAGER, "trainingRuntimeSpec": runtime}
