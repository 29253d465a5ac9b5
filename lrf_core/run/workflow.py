"""A whole run in one process: analyze, explore, decompose, finetune, validate, publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras

from lrf_core import stages, telemetry
from lrf_core.artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Plan,
    PlanOutcome,
    Release,
    Verdict,
)
from lrf_core.data import Data, open_data
from lrf_core.exploration.cache import open_cache
from lrf_core.files.folder_lock import lock_folder
from lrf_core.latency import LatencyTable, measured_first
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.run import steps
from lrf_core.run.outputs import Outputs
from lrf_core.run.results import write_lineage
from lrf_core.run.resume import FinishedStages
from lrf_core.run.steps import Candidate, Judgement
from lrf_core.secrets.verdict_key import verdict_key
from lrf_core.spec import Spec
from lrf_core.spec.release_name import release_name as usable_name
from lrf_core.storage import open_store


@dataclass(frozen=True)
class RunResult:
    """The result of a whole run.

    Attributes:
        judgement: what the gate decided on the candidate of each plan.
        release: None if nothing was published.
    """

    outputs: Outputs
    analysis: Analysis
    judgement: Judgement
    release: Release | None

    @property
    def outcome(self) -> PlanOutcome:
        """Of the selected plan."""
        return self.judgement.outcome

    @property
    def plan(self) -> Plan:
        return self.outcome.plan

    @property
    def finetune(self) -> FinetuneRecord:
        return self.outcome.finetune

    @property
    def verdict(self) -> Verdict:
        return self.outcome.verdict


def run_spec(spec: Spec) -> RunResult:
    """Compress, fine-tune and judge a model by a spec, and publish it if it passes.

    Each plan is fine-tuned once; the smallest candidate that passes the gate is published. Every
    artifact is written to `spec.out` as soon as it exists. Called again with the same spec after an
    interruption, it loads the results of finished stages.

    Args:
        spec: what `load_spec` reads. Scores, checkpoints and the release lie in `spec.out` unless
            it names other places.

    Raises:
        LrfError: bad input of any kind, or another run in `spec.out`; see `lrf_core.errors`.

    Example:
        >>> import lrf_core as lrf
        >>> result = lrf.run_spec(lrf.load_spec("spec.yaml"))  # doctest: +SKIP
        >>> result.verdict.passed  # doctest: +SKIP
        True
    """
    spec = spec.in_own_folder()
    model = load_model(spec.model, spec.weights)
    steps.check_one_output(model)
    # Errors that would end the run at its end are found before the work.
    usable_name(spec.publish.name or model.name)
    verdict_key()
    data = open_data(spec.data, model, spec.seed)
    open_store(str(spec.publish.to)).check()
    outputs = Outputs(Path(spec.out))
    with lock_folder(outputs.folder):
        return _run(spec, model, data, outputs)


def _run(spec: Spec, model: keras.Model, data: Data, outputs: Outputs) -> RunResult:
    if spec.explore.cache:
        open_cache(spec.explore.cache)
    finished = FinishedStages.of_run(outputs.steps, model_digest(model), data.digest)
    analysis, space = _explore(spec, model, data, outputs, finished)
    branches = _branches(spec, analysis, space, outputs, finished)
    candidates = [
        _finetune(spec, plan, factorized, model, data, branch)
        for branch, (plan, factorized) in zip(
            branches, _decompose(spec, model, data, space, branches), strict=True
        )
    ]
    judgement = _judge(spec, model, candidates, data, branches, finished)
    outputs.copy_from(branches[judgement.selected].outputs)
    outputs.override.unlink(missing_ok=True)  # of an earlier verdict
    override = stages.requested_override(judgement.verdict, spec.publish.override)
    if override:
        override.save(outputs.override)
    steps.record_judgement(
        spec, judgement, analysis, space, outputs.lineage, outputs.report, override
    )
    release = None
    if judgement.verdict.passed or override:
        with telemetry.stage("publish"):
            candidate = candidates[judgement.selected].model
            attached = outputs.attachments()
            release = steps.publish(
                spec,
                candidate,
                judgement.verdict,
                analysis,
                attached,
                override,
                gate=spec.effective_gate(),
            )
        write_lineage(
            outputs.lineage,
            analysis,
            space,
            judgement.outcome,
            override=override,
            release=release,
        )
    return RunResult(outputs, analysis, judgement, release)


def _explore(
    spec: Spec, model: keras.Model, data: Data, outputs: Outputs, finished: FinishedStages
) -> tuple[Analysis, DesignSpace]:
    explore = spec.explore
    settings = {
        "explore": explore.model_dump(mode="json", exclude={"cache", "latency"}),
        "seed": spec.seed,
    }
    analysis = finished.once(
        "analyze",
        settings,
        lambda: Analysis.load(outputs.analysis),
        lambda: steps.analyze(spec, model, data),
        lambda analysis: analysis.save(outputs.analysis),
    )
    measured = measured_first(explore, model, analysis.eligible(), outputs.latency)
    if measured.latency:
        settings = {**settings, "latency": LatencyTable.load(measured.latency).digest()}
    measured_spec = spec.model_copy(update={"explore": measured})
    space = finished.once(
        "explore",
        settings,
        lambda: DesignSpace.load(outputs.design_space),
        lambda: steps.explore(measured_spec, model, data, analysis),
        lambda space: space.save(outputs.design_space),
    )
    return analysis, space


@dataclass(frozen=True)
class _Branch:
    """One plan: where its files lie, and which of its stages are finished."""

    number: int
    outputs: Outputs
    finished: FinishedStages


def _branches(
    spec: Spec,
    analysis: Analysis,
    space: DesignSpace,
    outputs: Outputs,
    finished: FinishedStages,
) -> list[_Branch]:
    numbers = steps.plan_numbers(spec, space, analysis)
    count = spec.effective_decompose().plans or 1
    outputs.clear_plans(keep=numbers if count > 1 else ())
    return [_Branch(i, outputs.of_plan(i, count), finished.of_plan(i, count)) for i in numbers]


def _decompose(
    spec: Spec, model: keras.Model, data: Data, space: DesignSpace, branches: Sequence[_Branch]
) -> list[tuple[Plan, keras.Model]]:
    @cache
    def prepared() -> stages.Prepared:
        return steps.prepare(spec, model, data, space)

    def decompose(branch: _Branch) -> tuple[Plan, keras.Model]:
        outputs = branch.outputs

        def save(result: tuple[Plan, keras.Model]) -> None:
            save_model(result[1], outputs.factorized)
            result[0].save(outputs.plan)

        return branch.finished.once(
            "decompose",
            {
                "goal": spec.effective_goal().model_dump(mode="json"),
                "decompose": spec.effective_decompose().model_dump(mode="json"),
            },
            lambda: (Plan.load(outputs.plan), load_model(outputs.factorized)),
            lambda: prepared().build(branch.number),
            save,
        )

    return [decompose(branch) for branch in branches]


def _finetune(
    spec: Spec,
    plan: Plan,
    factorized: keras.Model,
    teacher: keras.Model,
    data: Data,
    branch: _Branch,
) -> Candidate:
    outputs = branch.outputs

    def save(result: tuple[keras.Model, FinetuneRecord]) -> None:
        save_model(result[0], outputs.candidate)
        result[1].save(outputs.finetune)

    model, record = branch.finished.once(
        "finetune",
        {"finetune": spec.finetune.decisive()},
        lambda: (load_model(outputs.candidate), FinetuneRecord.load(outputs.finetune)),
        lambda: steps.finetune(spec, factorized, teacher, data),
        save,
    )
    return Candidate(plan, record, model)


def _judge(
    spec: Spec,
    model: keras.Model,
    candidates: Sequence[Candidate],
    data: Data,
    branches: Sequence[_Branch],
    finished: FinishedStages,
) -> Judgement:
    def load() -> Judgement:
        return steps.judgement_of(
            candidates, [Verdict.load(branch.outputs.verdict) for branch in branches]
        )

    def save(judgement: Judgement) -> None:
        for branch, outcome in zip(branches, judgement.outcomes, strict=True):
            outcome.verdict.save(branch.outputs.verdict)

    return finished.after(branch.finished for branch in branches).once(
        "validate",
        {"gate": spec.effective_gate().model_dump(mode="json")},
        load,
        lambda: steps.judge(spec, model, candidates, data),
        save,
    )
