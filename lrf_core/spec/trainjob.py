"""How fine-tuning by several workers runs on Kubernetes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lrf_core.spec.section import Section


class TrainJobSpec(Section):
    """A TrainJob of Kubeflow Trainer (v2.2 or later): one worker in each of its pods."""

    image: str = Field(
        min_length=1, description="With lrf[jax]; the image of the other steps will do."
    )
    folder: str = Field(
        pattern="^/",
        description="Where models are handed over: a path that the step and all workers see, below "
        "the mount of a claim.",
    )
    claims: dict[str, str] = Field(
        default_factory=dict,
        description="Persistent volume claims (ReadWriteMany) to mount: name to path. The step "
        "mounts them at the same paths.",
    )
    runtime: str = Field(
        "jax-distributed", description="A ClusterTrainingRuntime with the jax policy."
    )
    namespace: str | None = Field(None, description="Default: that of the step.")
    resources: dict[str, str] = Field(
        default_factory=dict,
        description="Of each worker, requested and limited: cpu, memory, nvidia.com/gpu.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Of the workers, e.g. AWS_ENDPOINT_URL. No secrets."
    )
    secrets: dict[str, Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/[\w.-]+$")]] = Field(
        default_factory=dict,
        description="Environment variables of the workers from Secrets: variable to secret/key.",
    )
    poll_seconds: float = Field(10.0, gt=0.0, description="Between two looks at the job.")
