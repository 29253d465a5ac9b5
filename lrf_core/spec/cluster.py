"""How the steps of the pipeline run on Kubernetes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lrf_core.secrets.verdict_key import KEY_FILE_SETTING
from lrf_core.spec.section import Duration, Section

StageName = Literal[
    "analyze",
    "explore",
    "merge",
    "decompose",
    "finetune",
    "validate",
    "publish",
    "compress_model",
]
# Tasks of the pipeline; compress_model is all of them in one.
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)[:-1]

# Set in every step by the pipeline itself.
RUN_ID, PUSHGATEWAY = "LRF_RUN_ID", "LRF_PUSHGATEWAY"

# Steps that seal or read verdicts, and where the key for that is mounted.
SEALING: tuple[StageName, ...] = ("validate", "publish", "compress_model")
VERDICT_KEY = "/run/secrets/lrf-verdict-key"

# Where `scratch` is mounted; also the cache of what was fetched.
SCRATCH = "/scratch"

_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)
# Names of this kind hold a path or the name of a Secret, not what is in it.
_REFERENCE = re.compile(r"(_FILE|_DIR|_PATH)$|^LRF_S3_SECRET$")


_UNITS = {
    "": 1.0,
    "m": 1e-3,
    **{unit: 1e3**power for power, unit in enumerate("MGT", 2)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGT", 1)},
}


def _as_text(value: Any) -> Any:
    """YAML reads `cpu: 4` as a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _absolute(path: str) -> str:
    clean = path.rstrip("/")
    if not clean or any(part in ("", ".", "..") for part in clean[1:].split("/")):
        raise ValueError("a mount is an absolute path below /, without '..'")
    return clean


Cpu = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(pattern=r"^([1-9]\d*(\.\d{1,3})?|0\.\d{0,2}[1-9]|[1-9]\d*m)$"),
]
Bytes = Annotated[str, Field(pattern=r"^[1-9]\d*(Ki|Mi|Gi|Ti|M|G|T)$")]
MountPath = Annotated[str, Field(pattern=r"^/[^\s:]*$"), AfterValidator(_absolute)]
# kfp calls a volume what the object that is mounted is called; names of volumes have no dots.
VolumeName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SecretKey = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+$")]
VolumeKey = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-zA-Z0-9][-._a-zA-Z0-9]*$")
]
LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9][-.a-z0-9]*/)?[A-Za-z0-9]([-._\w]*[A-Za-z0-9])?$")
]
LabelValue = Annotated[
    str,
    BeforeValidator(_as_text),
    Field(pattern=r"^([A-Za-z0-9]([-._\w]*[A-Za-z0-9])?)?$", max_length=63),
]


class TolerationSpec(Section):
    """A taint of nodes that a step bears."""

    key: LabelKey | None = Field(None, description="Default: every taint; then operator: Exists.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="As in Kubernetes.")
    value: LabelValue | None = Field(None, description="With Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Default: all effects."
    )
    seconds: int | None = Field(
        None, ge=0, description="With NoExecute: how long the step stays; default: for good."
    )

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> TolerationSpec:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with operator Exists has no value")
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key needs operator: Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds belong to effect: NoExecute")
        return self


class StageSpec(Section):
    """What the pods of one stage ask for, and where they run."""

    cpu: Cpu | None = Field(None, description='Cores requested, "2" or "500m".')
    cpu_limit: Cpu | None = Field(
        None,
        description="Default: none. A limit makes a step slow where the node has cores to spare.",
    )
    memory: Bytes | None = Field(None, description='Bytes requested, "8Gi".')
    memory_limit: Bytes | None = Field(
        None,
        description="Default: as requested, so that a step that needs more is stopped by its own "
        "limit, not others on the node by its hunger.",
    )
    gpus: int | None = Field(None, ge=0, le=64, description="Accelerators of each pod.")
    gpu: str = Field(
        "nvidia.com/gpu",
        pattern=r"^[a-z0-9][-.a-z0-9]*/[-._A-Za-z0-9]+$",
        description="The extended resource that accelerators are.",
    )
    scratch: Bytes | None = Field(
        None,
        description=f"An empty directory of at most this size at {SCRATCH}, where data is kept "
        "that is fetched from object storage. (kfp requests no ephemeral-storage.)",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels of nodes, beside those of the whole section."
    )
    tolerations: tuple[TolerationSpec, ...] = Field(
        (), description="Taints, beside those of the whole section."
    )
    timeout: Duration | None = Field(
        None, ge=1.0, description="Default: that of the whole section."
    )

    @model_validator(mode="after")
    def _limits_are_no_lower(self) -> StageSpec:
        for name, asked, limit in (
            ("cpu", self.cpu, self.cpu_limit),
            ("memory", self.memory, self.memory_limit),
        ):
            if asked and limit and _amount(limit) < _amount(asked):
                raise ValueError(f"{name}_limit {limit} is below the request, {asked}")
        return self


class RetrySpec(Section):
    """How often a step that failed is tried again. kfp tells no kind of failure from another: bad
    input is tried again as well, so keep the number small. What the gate refused did not fail."""

    count: int = Field(2, ge=0, le=10, description="0: never.")
    wait: Duration = Field(30.0, ge=1.0, le=3600.0, description="Before the first.")
    factor: int = Field(
        2, ge=1, le=10, description="Longer before each further one; Argo takes whole numbers only."
    )
    within: Duration = Field(
        7 * 86400.0,
        ge=1.0,
        le=30 * 86400.0,
        description="Of the start of the first: later nothing is tried, and what still runs is "
        "stopped (Argo's maxDuration; kfp's own default, an hour, is less than a long training).",
    )


# What a step asks for unless the spec says otherwise. Exploring ResNet50, VGG16 and InceptionV3
# took 4 to 6 GiB.
_DEFAULTS: dict[StageName, StageSpec] = {
    "analyze": StageSpec(cpu="1", memory="4Gi"),
    "explore": StageSpec(cpu="2", memory="8Gi"),
    "merge": StageSpec(cpu="500m", memory="2Gi"),
    "decompose": StageSpec(cpu="2", memory="8Gi"),
    "finetune": StageSpec(cpu="4", memory="8Gi"),
    "validate": StageSpec(cpu="2", memory="8Gi"),
    "publish": StageSpec(cpu="1", memory="4Gi"),
    "compress_model": StageSpec(cpu="4", memory="8Gi"),
}


class ClusterSpec(Section):
    """How the steps of the pipeline run on Kubernetes. Ignored by runs on one machine."""

    image: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9][^\s]*$",
        description="Of every step; default: what LRF_IMAGE names where the pipeline is compiled. "
        "A tag that never moves, or a digest: results are cached by it.",
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="Default: that of Kubernetes."
    )
    pull_secrets: tuple[ObjectName, ...] = Field((), description="Secrets to pull the image with.")
    service_account: ObjectName | None = Field(
        None, description="The run's; default: that of the installation."
    )
    pipeline_root: str | None = Field(
        None,
        pattern=r"^(s3|minio|gs)://[^@?#\s/]+(/[^@?#\s]*)?$",
        description="s3://bucket/prefix that keeps what passes from step to step; default: that "
        "of the installation.",
    )
    stages: dict[StageName, StageSpec] = Field(
        default_factory=dict,
        description="What the pods of a stage ask for; what is not set here has a default.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels of nodes, for every step."
    )
    tolerations: tuple[TolerationSpec, ...] = Field((), description="Taints, for every step.")
    env: dict[Variable, str] = Field(
        default_factory=dict, description="Environment variables of every step. No secrets."
    )
    secrets: dict[Variable, SecretKey] = Field(
        default_factory=dict,
        description="Environment variables of every step from Secrets: variable to secret/key.",
    )
    secret_files: dict[VolumeName, MountPath] = Field(
        default_factory=dict, description="Secrets to mount as folders: name to path."
    )
    verdict_key: VolumeKey | None = Field(
        None,
        description="secret/key of the key that verdicts are sealed with, for validate and publish "
        "alone; publish then refuses a verdict that is not sealed with it.",
    )
    config_maps: dict[VolumeName, MountPath] = Field(
        default_factory=dict, description="ConfigMaps to mount as folders: name to path."
    )
    claims: dict[VolumeName, MountPath] = Field(
        default_factory=dict,
        description="Persistent volume claims to mount in every step: name to path. Steps that run "
        "side by side on several nodes need ReadWriteMany or ReadOnlyMany.",
    )
    retries: RetrySpec = RetrySpec()
    timeout: Duration | None = Field(
        None, ge=1.0, description="Of each attempt of each step; default: none."
    )
    cache: bool = Field(
        True,
        description="Take over the results of earlier runs for the same content of model and data. "
        "Only where that content can be seen (s3://); validate and publish are never taken over.",
    )
    pushgateway: str | None = Field(
        None,
        pattern=r"^https?://[^@?#\s]+$",
        description="Of Prometheus: where steps push their metrics, without credentials.",
    )

    @model_validator(mode="after")
    def _holds_no_secret(self) -> ClusterSpec:
        for name in self.env:
            if _SECRET.search(name) and not _REFERENCE.search(name):
                raise ValueError(
                    f"env sets {name}, which looks like a secret; name a Secret: "
                    f"secrets: {{{name}: secret/key}}"
                )
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> ClusterSpec:
        own = [RUN_ID, *([PUSHGATEWAY] if self.pushgateway else [])]
        own += [KEY_FILE_SETTING] if self.verdict_key else []
        _refuse_twice("variable", (*self.env, *self.secrets, *own))
        mounted = (self.secret_files, self.config_maps, self.claims)
        scratch = any(self.stage(name).scratch for name in STAGE_NAMES)
        own_mounts = {"scratch": SCRATCH} if scratch else {}
        if self.verdict_key:
            own_mounts[self.verdict_key.partition("/")[0]] = VERDICT_KEY
        _refuse_twice("volume", (name for part in (*mounted, own_mounts) for name in part))
        _refuse_twice("mount", (path for part in (*mounted, own_mounts) for path in part.values()))
        return self

    def stage(self, name: StageName) -> StageSpec:
        """What the pods of a stage ask for: its own settings over the defaults, with those of the
        whole section beside them."""
        own, default = self.stages.get(name, StageSpec()), _DEFAULTS[name]
        memory = own.memory or own.memory_limit or default.memory
        return own.model_copy(
            update={
                "cpu": own.cpu or own.cpu_limit or default.cpu,
                "memory": memory,
                "memory_limit": own.memory_limit or memory,
                "node_selector": {**self.node_selector, **own.node_selector},
                "tolerations": (*self.tolerations, *own.tolerations),
                "timeout": own.timeout or self.timeout,
            }
        )


def _amount(quantity: str) -> float:
    """Cores or bytes of a quantity of Kubernetes."""
    digits = quantity.rstrip("KMGTim")
    return float(digits) * _UNITS[quantity.removeprefix(digits)]


def _refuse_twice(kind: str, names: Iterable[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise ValueError(f"{kind} {name} is asked for {times} times; once is enough")
