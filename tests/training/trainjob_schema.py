"""What the API server accepts as a TrainJob, as far as lrf writes one: unknown fields are refused.

Written after pkg/apis/trainer/v1alpha1/trainjob_types.go of github.com/kubeflow/trainer, v2.3.0
(commit 0015772c282d9e127c9a08330485ef84b4fb3840), and k8s.io/api/core/v1 of Kubernetes 1.34.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Subdomain = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ObjectMeta(Schema):
    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    namespace: Label
    labels: dict[str, Annotated[str, Field(max_length=63)]] = {}


class RuntimeRef(Schema):
    name: Subdomain
    apiGroup: Literal["trainer.kubeflow.org"] = "trainer.kubeflow.org"  # noqa: N815
    kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"


class SecretKeySelector(Schema):
    name: Subdomain
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")]


class EnvVarSource(Schema):
    secretKeyRef: SecretKeySelector  # noqa: N815


class EnvVar(Schema):
    name: Annotated[str, Field(min_length=1)]
    value: str | None = None
    valueFrom: EnvVarSource | None = None  # noqa: N815

    @model_validator(mode="after")
    def one_of_both(self) -> EnvVar:
        assert (self.value is None) != (self.valueFrom is None)
        return self


class ResourceRequirements(Schema):
    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class Trainer(Schema):
    image: Annotated[str, Field(max_length=500)]
    command: Annotated[list[Annotated[str, Field(max_length=65536)]], Field(max_length=128)]
    args: Annotated[list[str], Field(max_length=128)] = []
    env: Annotated[list[EnvVar], Field(max_length=128)] = []
    numNodes: Annotated[int, Field(ge=1, lt=2**31)]  # noqa: N815
    resourcesPerNode: ResourceRequirements | None = None  # noqa: N815
    numProcPerNode: int | None = None  # noqa: N815


class ClaimSource(Schema):
    claimName: Subdomain  # noqa: N815
    readOnly: bool = False  # noqa: N815


class Volume(Schema):
    name: Label
    persistentVolumeClaim: ClaimSource  # noqa: N815


class VolumeMount(Schema):
    name: Label
    mountPath: Annotated[str, Field(pattern="^[^:]+$")]  # noqa: N815
    readOnly: bool = False  # noqa: N815


class ContainerPatch(Schema):
    # The webhook refuses `env` for the container "node": it goes into the trainer.
    name: Annotated[str, Field(min_length=1, max_length=253)]
    volumeMounts: Annotated[list[VolumeMount], Field(max_length=128)] = []  # noqa: N815


class PodSpecPatch(Schema):
    volumes: Annotated[list[Volume], Field(max_length=128)] = []
    containers: Annotated[list[ContainerPatch], Field(max_length=64)] = []

    @model_validator(mode="after")
    def mounts_have_volumes(self) -> PodSpecPatch:
        names = [volume.name for volume in self.volumes]
        assert len(set(names)) == len(names)
        for container in self.containers:
            assert {mount.name for mount in container.volumeMounts} <= set(names)
        return self


class PodTemplatePatch(Schema):
    spec: PodSpecPatch


class JobSpecPatch(Schema):
    template: PodTemplatePatch


class JobTemplatePatch(Schema):
    spec: JobSpecPatch


class ReplicatedJobPatch(Schema):
    name: Label
    template: JobTemplatePatch


class JobSetSpecPatch(Schema):
    replicatedJobs: Annotated[list[ReplicatedJobPatch], Field(max_length=100)]  # noqa: N815


class JobSetTemplatePatch(Schema):
    spec: JobSetSpecPatch


class TrainingRuntimeSpecPatch(Schema):
    template: JobSetTemplatePatch


class RuntimePatch(Schema):
    manager: Annotated[str, Field(min_length=1, max_length=253)]
    trainingRuntimeSpec: TrainingRuntimeSpecPatch  # noqa: N815


class TrainJobSpec(Schema):
    runtimeRef: RuntimeRef  # noqa: N815
    trainer: Trainer
    runtimePatches: Annotated[list[RuntimePatch], Field(max_length=16)] = []  # noqa: N815
    suspend: bool = False


class TrainJob(Schema):
    apiVersion: Literal["trainer.kubeflow.org/v1alpha1"]  # noqa: N815
    kind: Literal["TrainJob"]
    metadata: ObjectMeta
    spec: TrainJobSpec
