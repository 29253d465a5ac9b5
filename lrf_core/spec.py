"""What a user may ask for: one pydantic model = one YAML file = the flags of the command line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lrf_core import similarity
from lrf_core.errors import SpecError
from lrf_core.named_function import PATTERN

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Minimized = Literal["error", "sensitivity", "params", "macs", "bytes", "latency"]

_COSTS = {
    "params_reduction",
    "macs_reduction",
    "bytes_reduction",
    "latency_reduction",
    "max_params",
    "max_macs",
    "max_weight_bytes",
    "max_latency_ms",
}


class Section(BaseModel):
    """Base of every part of the spec: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Goal(Section):
    """What the plan must reach: every limit that is set. With nothing set, `max_accuracy_drop` is 1
    point.

    Parameters, multiply-adds and bytes are of the whole model, latencies summed over the explored
    layers.
    """

    max_accuracy_drop: float | None = Field(
        None, ge=0.0, le=100.0, description="Accuracy that may be lost after fine-tuning, points."
    )
    params_reduction: Share | None = Field(
        None, description="Share of the whole model's parameters to remove, at least."
    )
    macs_reduction: Share | None = Field(
        None, description="Share of the whole model's multiply-adds to remove, at least."
    )
    bytes_reduction: Share | None = Field(
        None, description="Share of the whole model's weight bytes to remove, at least."
    )
    latency_reduction: Share | None = Field(
        None, description="Share of the explored layers' latency to remove, at least."
    )
    max_params: int | None = Field(None, ge=1, description="Parameters of the whole model.")
    max_macs: int | None = Field(None, ge=1, description="Multiply-adds of one sample.")
    max_weight_bytes: int | None = Field(None, ge=1, description="Bytes of all weights.")
    max_latency_ms: float | None = Field(
        None, gt=0.0, description="Summed latency of the explored layers, milliseconds a sample."
    )
    max_predicted_loss: float | None = Field(
        None, ge=0.0, description="Summed sensitivity, the predicted loss (nats), no fine-tuning."
    )
    similarity: float | None = Field(
        None, ge=0.0, le=1.0, description="Least similarity of every layer's feature map."
    )

    def limits_costs(self) -> bool:
        """Whether it limits anything but losses."""
        return self.model_dump(include=_COSTS) != dict.fromkeys(_COSTS)

    def limits_losses(self) -> bool:
        """Whether it limits how much worse the model may get, by any measure."""
        losses = (self.max_accuracy_drop, self.max_predicted_loss, self.similarity)
        return any(limit is not None for limit in losses)

    def minimized(self, loss: Minimized) -> Minimized:
        """What to minimise where that is not set: `loss`, or the parameters if nothing else would
        make the model smaller."""
        asks_for_accuracy = self.max_accuracy_drop is not None
        if self.limits_losses() and not self.limits_costs() and not asks_for_accuracy:
            return "params"
        return loss


class ExploreSpec(Section):
    """How the design space is made."""

    methods: tuple[str, ...] = Field(
        ("tucker", "cp", "tensor_train", "svd", "qr", "t3f"),
        min_length=1,
        description="Factorizations that compete for each layer.",
    )
    layers: tuple[str, ...] = Field(("*",), description="Glob patterns of layers to consider.")
    exclude: tuple[str, ...] = Field((), description="Glob patterns of layers to leave alone.")
    samples: int = Field(512, ge=8, description="Calibration samples, from the training data.")
    batch_size: int | None = Field(
        None, ge=1, description="Calibration samples at once; default: as many as fit into memory."
    )
    memory_gib: float = Field(
        4.0,
        gt=0.0,
        description="Memory for the moments of layers explored together and the arithmetic on "
        "them; layers are explored in groups that fit, one pass over the samples each.",
    )
    similarity: str = Field(
        "nmse",
        description="How alike two feature maps are: nmse, cosine, cka, pearson, ssim (of 2-D "
        "maps).",
    )
    loss: str | None = Field(
        None,
        pattern=f"^{PATTERN}$",
        description="module:function, a loss of (outputs, uniform) whose gradient tells how much "
        "an error matters; default: the likelihood that the outputs stand for.",
    )
    ranks_per_mode: int = Field(16, ge=2, le=256, description="Ranks offered per mode, at most.")
    shards: int = Field(2, ge=1, le=64, description="Parts explored side by side in a pipeline.")
    latency: str | None = Field(
        None,
        description='A latency table that `lrf profile` wrote, or "measure" to measure here first. '
        "Without it candidates have no latency.",
    )
    cache: str | Literal[False] | None = Field(
        None,
        description="Where scores are kept, so that no layer is scored twice: file:///dir, a path, "
        "s3://bucket/prefix, or false for nowhere. Default: .cache in the output, in the steps of "
        "a pipeline on a cluster nowhere.",
    )

    def decisive(self) -> dict[str, Any]:
        """What decides the design space: not where scores are kept, nor how work is shared out."""
        return self.model_dump(mode="json", exclude={"cache", "latency", "shards"})

    def scoring(self) -> dict[str, Any]:
        """What decides the scores of one layer by one method, given the calibration samples."""
        chosen = {"methods", "layers", "exclude", "samples"}
        return {name: value for name, value in self.decisive().items() if name not in chosen}

    @field_validator("similarity")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            return similarity.get(name).name
        except SpecError as error:
            raise ValueError(str(error)) from None


class DecomposeSpec(Section):
    """How one candidate per layer is chosen."""

    policy: Literal["knapsack", "threshold", "vbmf"] = Field(
        "knapsack",
        description="knapsack: exactly the best plan. threshold: the same least similarity for "
        "every layer. vbmf: Tucker and SVD ranks by variational Bayes, whatever the goal; limits "
        "are only checked.",
    )
    minimize: Minimized | None = Field(
        None,
        description="What the knapsack minimises over the layers: relative feature-map error (best "
        "before fine-tuning), or sensitivity, the predicted loss (best as the model stands), or "
        "params, macs, bytes or latency where the goal limits the loss. Default: params if the "
        "goal limits the loss alone; else error if fine-tuning follows, else sensitivity.",
    )
    refit: bool = Field(
        True,
        description="Fit each layer again to what it sees behind compressed layers; takes a pass "
        "over the calibration samples per layer.",
    )
    expected_recovery: float = Field(
        0.75,
        ge=0.0,
        lt=1.0,
        description="Share of the drop that fine-tuning is expected to win back; used only to "
        "choose a plan for max_accuracy_drop. The gate judges what really came out.",
    )


class FinetuneSpec(Section):
    """How the factorized model is trained, once."""

    epochs: int = Field(3, ge=0, description="0 skips fine-tuning.")
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0.0, description="Peak of the cosine schedule (Adam).")
    distillation: float = Field(
        0.9, ge=0.0, le=1.0, description="Weight of the original's answers against the labels."
    )
    temperature: float = Field(4.0, gt=0.0)
    validation_share: float = Field(
        0.05, gt=0.0, le=0.5, description="Of the training data, held out to pick the best weights."
    )
    max_samples: int | None = Field(None, ge=1, description="Use at most this many samples.")


class GateSpec(Section):
    """Limits a model must keep to be published. A limit that is not set is reported, not judged."""

    max_accuracy_drop: float | None = Field(
        None, ge=0.0, le=100.0, description="Points; default: the goal's, else 1 point."
    )
    min_params_reduction: Share | None = Field(None, description="Default: the goal's.")
    min_macs_reduction: Share | None = Field(None, description="Default: the goal's.")
    max_weight_bytes: int | None = Field(None, ge=1, description="Default: the goal's.")
    max_keras_latency_ratio: float | None = Field(None, gt=0.0)
    max_litert_latency_ratio: float | None = Field(None, gt=0.0)
    max_samples: int | None = Field(None, ge=1, description="Judge on at most this many samples.")
    latency_repeats: int = Field(30, ge=3)


class PublishSpec(Section):
    """Where a model that passed goes."""

    to: str | None = Field(
        None, description="file:///dir or s3://bucket/prefix; default: release/ in the output."
    )
    name: str | None = Field(None, description="Name of the released model; default: the model's.")


class Spec(Section):
    """One compression, from a trained model to a release."""

    model: str = Field(
        description="A .keras or .h5 file, or a .json config (what model.to_json() returns)."
    )
    weights: str | None = Field(
        None, description="A .weights.h5, .h5 or .keras file; needed with a .json config only."
    )
    data: str = Field(description="An .npz file, a folder of class folders, or module:function.")
    out: str = Field("out", description="Folder for every artifact of the run.")
    seed: int = Field(0, ge=0)
    goal: Goal = Goal()
    explore: ExploreSpec = ExploreSpec()
    decompose: DecomposeSpec = DecomposeSpec()
    finetune: FinetuneSpec = FinetuneSpec()
    gate: GateSpec = GateSpec()
    publish: PublishSpec = PublishSpec()

    def effective_goal(self) -> Goal:
        """The goal, with the default of at most 1 point lost when nothing was asked for."""
        if self.goal == Goal():
            return Goal(max_accuracy_drop=1.0)
        return self.goal

    def effective_explore(self) -> ExploreSpec:
        """How to explore, with scores kept in the run's own folder unless the spec says where."""
        if self.explore.cache is not None:
            return self.explore
        return self.explore.model_copy(update={"cache": str(Path(self.out) / ".cache")})

    def effective_decompose(self) -> DecomposeSpec:
        """How to decompose, given whether fine-tuning follows."""
        trained = self.finetune.epochs > 0
        asked = self.decompose
        return asked.model_copy(
            update={
                "minimize": asked.minimize
                or self.effective_goal().minimized("error" if trained else "sensitivity"),
                "expected_recovery": asked.expected_recovery if trained else 0.0,
            }
        )

    def effective_gate(self) -> GateSpec:
        """The gate, with the limits it takes over from the goal."""
        goal, gate = self.effective_goal(), self.gate
        drop = (
            gate.max_accuracy_drop
            if gate.max_accuracy_drop is not None
            else (goal.max_accuracy_drop if goal.max_accuracy_drop is not None else 1.0)
        )
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


def read_spec(path: str | Path) -> dict[str, Any]:
    """Read a YAML spec as a plain mapping, so that flags can be laid over it.

    Raises:
        SpecError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read the spec {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"the spec {path} is not valid YAML: {reason}") from None
    if not isinstance(content, dict):
        raise SpecError(f"the spec {path} must be a mapping of settings, got {content!r:.60}")
    return content


def make_spec(settings: dict[str, Any], overrides: dict[str, Any] | None = None) -> Spec:
    """Validate settings with overrides laid over them, section by section.

    Args:
        settings: what the YAML file holds.
        overrides: the same shape; a value of None is no override.

    Raises:
        SpecError: an unknown key (the nearest known one is suggested) or an unusable value.
    """
    try:
        return Spec.model_validate(_laid_over(settings, overrides or {}))
    except ValidationError as error:
        raise SpecError(_explain(error)) from None


def load_spec(path: str | Path, overrides: dict[str, Any] | None = None) -> Spec:
    """Read and validate a YAML spec. Raises SpecError."""
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


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            problems.append(f"unknown setting '{where}'{_suggestion(problem['loc'])}")
        elif problem["type"] == "missing":
            problems.append(f"setting '{where}' is required")
        else:
            problems.append(f"setting '{where}': {problem['msg']}, got {problem['input']!r:.60}")
    return "; ".join(problems)


def _suggestion(location: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = Spec
    for part in location[:-1]:
        below = section.model_fields[str(part)].annotation
        if not (isinstance(below, type) and issubclass(below, BaseModel)):
            return ""
        section = below
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    known = ", ".join(section.model_fields)
    return f" (did you mean '{near[0]}'?)" if near else f" (known here: {known})"
