"""How the factorized model is trained, once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from lrf_core.named_function import PATTERN
from lrf_core.spec.section import Section


class FinetuneSpec(Section):
    """How the factorized model is trained, once."""

    epochs: int = Field(3, ge=0, description="Epochs of fine-tuning; 0 skips it.")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Of all workers together. Default: a hundredth of the samples, between 16 and "
        "128, fewer where they are large.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0.0,
        description="Peak of the warm-up and cosine schedule (AdamW). Default: 5e-4 for batches of "
        "128, less for smaller ones by the square root.",
    )
    weight_decay: float = Field(
        0.01, ge=0.0, description="Of kernels and factors; not of norms and biases."
    )
    clip_norm: float | None = Field(
        1.0, gt=0.0, description="Largest norm of all gradients together; null for none."
    )
    distillation: float = Field(
        0.9, ge=0.0, le=1.0, description="Weight of the original's answers against the labels."
    )
    temperature: float = Field(4.0, gt=0.0, description="Softens the answers that are compared.")
    feature_distillation: float = Field(
        0.0,
        ge=0.0,
        description="Weight of the relative squared distance of the feature maps of factorized "
        "layers from the original's.",
    )
    augmentation: str | None = Field(
        None,
        pattern=f"^(flip|flip_shift|{PATTERN})$",
        description="flip (left and right), flip_shift (and by up to an eighth), or "
        "module:function of (samples, numpy.random.Generator) that returns samples.",
    )
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="What layers compute in while they are trained; weights are float32."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this many epochs without a lower held-out loss; default: half of "
        "the epochs, at least 3.",
    )
    recalibrate: bool = Field(
        True,
        description="Estimate the statistics of batch normalization again at the end; kept if the "
        "held-out loss does not rise.",
    )
    validation_share: float = Field(
        0.05, gt=0.0, le=0.5, description="Of the training data, held out to pick the best weights."
    )
    max_samples: int | None = Field(None, ge=1, description="Use at most this many samples.")
    checkpoint: str | Literal[False] | None = Field(
        None,
        description="Where the state of training is kept, so that it goes on after an "
        "interruption: file:///dir, a path, s3://bucket/prefix, or false for nowhere. Default: "
        ".cache in the output, in the steps of a pipeline on a cluster nowhere.",
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0.0, description="Seconds between two checkpoints, at least."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that train together, on Keras' JAX backend (needs lrf[jax]), each "
        "on its part of every batch. On this machine, unless trainjob is set.",
    )
    trainjob: TrainJobSpec | None = Field(
        None, description="Several workers run as a Kubeflow Trainer job, one in each pod."
    )

    def decisive(self) -> dict[str, Any]:
        """What decides the result: not where it is trained, and the state is kept, or how often."""
        where = {"checkpoint", "checkpoint_seconds", "trainjob"}
        return self.model_dump(mode="json", exclude=where)


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
