"""One compression, from a trained model to a release; read from YAML and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from lrf_core.errors import SpecError
from lrf_core.files.limits import SPEC, read_document
from lrf_core.redaction import looks_secret
from lrf_core.spec import strict_yaml
from lrf_core.spec.cluster import ClusterSpec
from lrf_core.spec.explore import ExploreSpec
from lrf_core.spec.finetune import FinetuneSpec
from lrf_core.spec.gate import GateSpec
from lrf_core.spec.goal import DecomposeSpec, Goal
from lrf_core.spec.problems import problems_in
from lrf_core.spec.promote import PromoteSpec
from lrf_core.spec.publish import PublishSpec
from lrf_core.spec.section import Section


class Spec(Section):
    """One compression, from a trained model to a release."""

    model: str = Field(
        description="A .keras or .h5 file, a .json config (what model.to_json() returns), or "
        "s3://bucket/key of one."
    )
    weights: str | None = Field(
        None, description="A .weights.h5, .h5 or .keras file; needed with a .json config only."
    )
    data: str = Field(
        description="An .npz file, a folder of class folders or an archive of one, s3://bucket/key "
        "of these, or module:function."
    )
    out: str = Field("out", description="Folder for every artifact of the run.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    goal: Goal = Goal()
    explore: ExploreSpec = ExploreSpec()
    decompose: DecomposeSpec = DecomposeSpec()
    finetune: FinetuneSpec = FinetuneSpec()
    gate: GateSpec = GateSpec()
    publish: PublishSpec = PublishSpec()
    promote: PromoteSpec | None = None
    cluster: ClusterSpec = ClusterSpec()

    @model_validator(mode="after")
    def _claims_fit(self) -> Spec:
        try:
            self.effective_cluster()
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ValueError(
                f"finetune.trainjob.claims beside those of cluster: {reason}"
            ) from None
        return self

    def effective_goal(self) -> Goal:
        """The goal; without any limit, a `max_accuracy_drop` of 1 point."""
        if self.goal == Goal():
            return Goal(max_accuracy_drop=1.0)
        return self.goal

    def in_own_folder(self) -> Spec:
        """The spec with scores, checkpoints and releases in `out`, unless it names other places.

        Runs on this machine use it. A step on a cluster does not: nothing outlives its folder.
        """
        folder = Path(self.out)
        checkpoint = self.finetune.checkpoint
        cache = str(folder / ".cache") if self.explore.cache is None else self.explore.cache
        if checkpoint is None:
            # Who wants no cache wants nothing to be stored between runs.
            checkpoint = False if cache is False else str(folder / ".cache")
        to = self.publish.to or (folder / "release").absolute().as_uri()
        return self.model_copy(
            update={
                "explore": self.explore.model_copy(update={"cache": cache}),
                "finetune": self.finetune.model_copy(update={"checkpoint": checkpoint}),
                "publish": self.publish.model_copy(update={"to": to}),
            }
        )

    def effective_decompose(self) -> DecomposeSpec:
        """How to decompose, given the goal and whether fine-tuning follows."""
        is_trained = self.finetune.epochs > 0
        settings, goal = self.decompose, self.effective_goal()
        return settings.model_copy(
            update={
                "minimize": settings.minimize
                or goal.minimized("error" if is_trained else "sensitivity"),
                "expected_recovery": settings.expected_recovery if is_trained else 0.0,
                "plans": settings.plans_for(goal),
            }
        )

    def effective_cluster(self) -> ClusterSpec:
        """How steps run on Kubernetes, with what a TrainJob of fine-tuning shares with its step."""
        job = self.finetune.trainjob
        if job is None or not job.claims:
            return self.cluster
        settings = self.cluster.model_dump()
        return ClusterSpec.model_validate(
            {**settings, "claims": {**job.claims, **settings["claims"]}}
        )

    def effective_gate(self) -> GateSpec:
        """The gate, with the limits that the goal sets."""
        goal, gate = self.effective_goal(), self.gate
        drop = gate.max_accuracy_drop
        if drop is None:
            # The default of 1 point of accuracy must not fail another metric.
            limits = goal if gate.judges_accuracy() else self.goal
            default = 1.0 if gate.judges_accuracy() else None
            drop = default if limits.max_accuracy_drop is None else limits.max_accuracy_drop
        params = gate.min_params_reduction
        macs = gate.min_macs_reduction
        size = gate.max_weight_bytes
        return gate.model_copy(
            update={
                "max_accuracy_drop": drop,
                "min_params_reduction": params if params is not None else goal.params_reduction,
                "min_macs_reduction": macs if macs is not None else goal.macs_reduction,
                "max_weight_bytes": size if size is not None else goal.max_weight_bytes,
            }
        )


def read_spec(path: str | Path, kind: str = "spec") -> dict[str, Any]:
    """Read a YAML spec as a plain mapping, so that flags can be laid over it.

    Args:
        kind: what an error calls the file.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = read_document(Path(path), SPEC, f"the {kind} {path}", SpecError)
    except OSError as error:
        raise SpecError(f"cannot read the {kind} {path}: {error.strerror or error}") from None
    return parse_spec(content, f"the {kind} {path}")


def parse_spec(content: bytes | str, where: str) -> dict[str, Any]:
    """Parse YAML, or JSON, which is YAML, as a plain mapping.

    Args:
        where: what an error calls the text.

    Raises:
        SpecError: it is not YAML, or not a mapping.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        settings = strict_yaml.parsed(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SpecError(f"{where} is not valid YAML: {reason}") from None
    if not isinstance(settings, dict):
        raise SpecError(f"{where} must be a mapping of settings, got {settings!r:.60}")
    return settings


def make_spec(settings: dict[str, Any], overrides: dict[str, Any] | None = None) -> Spec:
    """Validate settings with overrides laid over them, section by section.

    Args:
        settings: what the YAML file holds.
        overrides: the same shape; a value of None is no override.

    Raises:
        SpecError: an unknown key (the nearest known one is suggested), an unusable value, or one
            that holds a secret: settings are written into artifacts and shown by registries.
    """
    merged = _laid_over(settings, overrides or {})
    _refuse_secrets(merged)
    try:
        return Spec.model_validate(merged)
    except ValidationError as error:
        raise SpecError(problems_in(error, Spec)) from None


def _refuse_secrets(settings: Any, where: str = "") -> None:
    if isinstance(settings, dict):
        for key, value in settings.items():
            _refuse_secrets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(settings, list | tuple):
        for value in settings:
            _refuse_secrets(value, where)
    elif isinstance(settings, str) and looks_secret(settings):
        raise SpecError(
            f"setting '{where}' holds a password, a token or a signed address; give credentials in "
            "the environment or a mounted secret, see docs/security.md"
        )


def load_spec(path: str | Path, overrides: dict[str, Any] | None = None) -> Spec:
    """Read and validate a YAML spec.

    Args:
        path: of the file.
        overrides: settings that override those of the file, in the same shape; None overrides
            nothing.

    Raises:
        SpecError: the file cannot be read, a key is unknown, or a value cannot be used.
    """
    return make_spec(read_spec(path), overrides)


def _laid_over(settings: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for key, value in overrides.items():
        if isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _laid_over(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged
