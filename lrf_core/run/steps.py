"""Each stage as a spec wants it: with the settings of its section, on artifacts already loaded.

Commands, components and whole runs call these and only load, save and print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from lrf_core import stages, telemetry
from lrf_core.artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    PlanOutcome,
    Release,
    Verdict,
)
from lrf_core.data import Data, open_data
from lrf_core.errors import ModelError
from lrf_core.exploration.merge import merged
from lrf_core.exploration.shards import Shard
from lrf_core.latency import measured_first
from lrf_core.models.load import load_model
from lrf_core.models.unroll import to_functional
from lrf_core.run.results import write_results
from lrf_core.spec import GateSpec, Spec


@dataclass(frozen=True)
class Candidate:
    """A fine-tuned model with the plan that it was built by and the record of its training."""

    plan: Plan
    finetune: FinetuneRecord
    model: keras.Model


@dataclass(frozen=True)
class Judgement:
    """What the gate decided on the candidates of all plans.

    Attributes:
        outcomes: one for each candidate, in the order of their plans' numbers.
        selected: index of the candidate that is published, or shown if none passed.
    """

    outcomes: tuple[PlanOutcome, ...]
    selected: int

    @property
    def outcome(self) -> PlanOutcome:
        return self.outcomes[self.selected]

    @property
    def verdict(self) -> Verdict:
        return self.outcome.verdict


def load_inputs(spec: Spec, model: str | Path | None = None) -> tuple[keras.Model, Data]:
    """The model and the data of a spec, which fit each other.

    Args:
        model: where the model lies that `analyze` wrote, instead of the spec's own.

    Raises:
        ModelError, DataError, StorageError: either cannot be read.
    """
    network = load_model(model) if model else load_model(spec.model, spec.weights)
    return network, open_data(spec.data, network, spec.seed)


def check_one_output(model: keras.Model) -> None:
    """Raise ModelError for a model that fine-tuning and the gate cannot judge."""
    outputs = to_functional(model).outputs
    if len(outputs) > 1:
        raise ModelError(
            f"model '{model.name}' has {len(outputs)} outputs; fine-tuning and the gate "
            "judge models with one. Use lrf analyze, explore and decompose, and train with your "
            "own losses"
        )


def analyze(spec: Spec, model: keras.Model, data: Data) -> Analysis:
    """See `lrf_core.analyze`."""
    return stages.analyze(model, data, settings=spec.explore, seed=spec.seed)


def explore(
    spec: Spec,
    model: keras.Model,
    data: Data,
    analysis: Analysis,
    shard: Shard | None = None,
    latency_file: Path | None = None,
) -> DesignSpace:
    """See `lrf_core.explore`.

    Args:
        latency_file: where latencies are measured to, if the spec says "measure".
    """
    settings = spec.explore
    if latency_file:
        settings = measured_first(settings, model, analysis.eligible(), latency_file)
    return stages.explore(model, data, analysis, settings=settings, shard=shard, seed=spec.seed)


def merge(
    spec: Spec, spaces: Sequence[DesignSpace], analysis: Analysis
) -> tuple[DesignSpace, list[int]]:
    """The shards of an exploration as one design space, and the numbers of the plans to build."""
    space = merged(spaces)
    return space, plan_numbers(spec, space, analysis)


def plan_numbers(spec: Spec, space: DesignSpace, analysis: Analysis) -> list[int]:
    """See `lrf_core.plan_numbers`."""
    return stages.plan_numbers(
        space, analysis, spec.effective_goal(), settings=spec.effective_decompose()
    )


def prepare(spec: Spec, model: keras.Model, data: Data, space: DesignSpace) -> stages.Prepared:
    """What the plans of a spec have in common; `build(number)` builds each."""
    return stages.prepare(
        model,
        data,
        [space],
        spec.effective_goal(),
        settings=spec.effective_decompose(),
        seed=spec.seed,
    )


def finetune(
    spec: Spec, factorized: keras.Model, teacher: keras.Model, data: Data
) -> tuple[keras.Model, FinetuneRecord]:
    """See `lrf_core.finetune`; with the loss and metrics that the teacher is compiled with."""
    return stages.finetune(
        factorized,
        teacher,
        data,
        settings=spec.finetune,
        seed=spec.seed,
    )


def judge(
    spec: Spec, baseline: keras.Model, candidates: Sequence[Candidate], data: Data
) -> Judgement:
    """Judge all candidates on the same samples, and select the one that the run is about."""
    verdicts = stages.validate_all(
        baseline,
        [candidate.model for candidate in candidates],
        data,
        gate=spec.effective_gate(),
        seed=spec.seed,
    )
    return judgement_of(candidates, verdicts)


def judgement_of(candidates: Sequence[Candidate], verdicts: Sequence[Verdict]) -> Judgement:
    """The judgement that verdicts on candidates amount to."""
    outcomes = tuple(
        PlanOutcome(candidate.plan, candidate.finetune, verdict)
        for candidate, verdict in zip(candidates, verdicts, strict=True)
    )
    return Judgement(outcomes, stages.select_candidate(verdicts))


def record_judgement(
    spec: Spec,
    judgement: Judgement,
    analysis: Analysis,
    space: DesignSpace,
    lineage: Path,
    report: Path,
    override: Override | None = None,
) -> None:
    """Write the lineage and the report of a judgement, and count it in the metrics."""
    telemetry.record_verdict(judgement.verdict, release_name(spec, analysis))
    write_results(
        lineage, report, analysis, space, judgement.outcomes, judgement.selected, override
    )


def publish(
    spec: Spec,
    candidate: keras.Model,
    verdict: Verdict,
    analysis: Analysis,
    attachments: Mapping[str, Path],
    override: Override | None = None,
    *,
    gate: GateSpec | None,
    run_id: str | None = None,
) -> Release:
    """See `lrf_core.publish`.

    Args:
        attachments: `lrf_core.run.outputs.attachments` of the run.
        override: see `stages.override_of` and `stages.requested_override`.
        gate: the limits that the verdict must have been made by; None for any.
        run_id: of the pipeline run, for the registries.
    """
    return stages.publish(
        candidate,
        verdict,
        str(spec.publish.to),
        name=release_name(spec, analysis),
        attachments=attachments,
        override=override,
        gate=gate,
        settings=spec.publish,
        run_id=run_id,
    )


def release_name(spec: Spec, analysis: Analysis) -> str:
    """Name of the released model."""
    return spec.publish.name or analysis.model_name
