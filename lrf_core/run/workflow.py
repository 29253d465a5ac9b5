"""The whole way in one process: analyze, explore, decompose, finetune, validate, publish."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import keras

from lrf_core import stages, telemetry
from lrf_core.artifacts import (
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    Release,
    Verdict,
    digest_of,
)
from lrf_core.artifacts import versions as package_versions
from lrf_core.data import Data, open_data
from lrf_core.errors import LrfError, ModelError
from lrf_core.exploration.cache import open_cache
from lrf_core.files.atomic import write_atomically
from lrf_core.files.folder_lock import alone_in
from lrf_core.latency import LatencyTable, measured_first
from lrf_core.models.compiled import compiled_in
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.run.outputs import Outcome, Outputs, Run
from lrf_core.run.results import write_results, write_whole_lineage
from lrf_core.secrets.verdict_key import verdict_key
from lrf_core.spec import GateSpec, Spec
from lrf_core.spec.release_name import release_name as usable_name
from lrf_core.storage import open_store

_logger = logging.getLogger("lrf")
_Result = TypeVar("_Result")


def compress(spec: Spec) -> Run:
    """Compress, fine-tune, judge, and publish what passes, or what a person let through.

    Every plan that the spec asks for is fine-tuned once; the smallest that passes is published.

    Every artifact is written to `spec.out` as soon as it is there. Run again with the same spec
    after an interruption, and finished stages are not repeated.

    Raises:
        LrfError: bad input of any kind, or another run in `spec.out`; see `lrf_core.errors`.
    """
    model = load_model(spec.model, spec.weights)
    if len(model.outputs) > 1:
        raise ModelError(
            f"model '{model.name}' has {len(model.outputs)} outputs; fine-tuning and the gate "
            "judge models with one. Use lrf analyze, explore and decompose, and train with your "
            "own losses"
        )
    # What would fail at the end is found before the work.
    usable_name(spec.publish.name or model.name)
    verdict_key()
    data = open_data(spec.data, model, spec.seed)
    open_store(store_uri(spec)).check()
    outputs = Outputs(Path(spec.out))
    with alone_in(outputs.folder):
        return _compressed(spec, model, data, outputs)


def _compressed(spec: Spec, model: keras.Model, data: Data, outputs: Outputs) -> Run:
    exploring = spec.effective_explore()
    if exploring.cache:
        open_cache(exploring.cache)
    steps = _Steps.of_run(outputs, model_digest(model), data.digest)
    analysis, space = _explored(spec, model, data, outputs, steps)
    tries = _tries(spec, analysis, space, outputs, steps)
    decomposed = _decomposed(spec, model, data, space, tries)
    trained = [
        _finetuned(spec, factorized, model, data, each)
        for each, (_, factorized) in zip(tries, decomposed, strict=True)
    ]
    verdicts = _judged(spec, model, [candidate for candidate, _ in trained], data, tries, steps)
    outcomes = tuple(
        Outcome(plan, record, verdict)
        for (plan, _), (_, record), verdict in zip(decomposed, trained, verdicts, strict=True)
    )
    picked = stages.pick(verdicts)
    outputs.show(tries[picked].outputs)
    shown, (candidate, _) = outcomes[picked], trained[picked]
    telemetry.record_verdict(shown.verdict, release_name(spec, analysis))
    override = stages.override_asked(shown.verdict, spec.publish.override)
    outputs.override.unlink(missing_ok=True)  # of an earlier verdict
    if override:
        override.save(outputs.override)
    write_results(outputs.lineage, outputs.report, analysis, space, outcomes, picked, override)
    release = None
    if shown.verdict.passed or override:
        with telemetry.stage("publish"):
            release = publish_by(
                spec,
                candidate,
                shown.verdict,
                analysis,
                outputs.attachments(),
                override,
                spec.effective_gate(),
            )
        write_whole_lineage(outputs.lineage, analysis, space, shown, override, release)
    return Run(outputs, analysis, outcomes, picked, release)


def store_uri(spec: Spec) -> str:
    """Where a model that passed goes."""
    return spec.publish.to or Outputs(Path(spec.out)).release.absolute().as_uri()


def release_name(spec: Spec, analysis: Analysis) -> str:
    """What the released model is called."""
    return spec.publish.name or analysis.model_name


def publish_by(
    spec: Spec,
    candidate: keras.Model,
    verdict: Verdict,
    analysis: Analysis,
    attachments: Mapping[str, Path],
    override: Override | None,
    gate: GateSpec | None,
    run_id: str | None = None,
) -> Release:
    """Publish as a spec asks for; see `stages.publish`.

    Args:
        gate: the limits that the verdict must have been made by, those of the spec; None where a
            person gave none.
    """
    return stages.publish(
        candidate,
        verdict,
        store_uri(spec),
        name=release_name(spec, analysis),
        attachments=attachments,
        override=override,
        gate=gate,
        settings=spec.publish,
        run_id=run_id,
    )


def _explored(
    spec: Spec, model: keras.Model, data: Data, outputs: Outputs, steps: _Steps
) -> tuple[Analysis, DesignSpace]:
    exploring = spec.effective_explore()
    inventoried = exploring.model_dump(mode="json", exclude={"cache", "latency"})
    settings: dict[str, Any] = {"explore": inventoried, "seed": spec.seed}
    analysis = steps.once(
        "analyze",
        settings,
        lambda: Analysis.load(outputs.analysis),
        lambda: stages.analyze(model, data, settings=exploring, seed=spec.seed),
        lambda analysis: analysis.save(outputs.analysis),
    )
    explored = measured_first(exploring, model, analysis.eligible(), outputs.latency)
    if explored.latency:
        settings = {**settings, "latency": LatencyTable.load(explored.latency).digest()}
    space = steps.once(
        "explore",
        settings,
        lambda: DesignSpace.load(outputs.design_space),
        lambda: stages.explore(model, data, analysis, settings=explored, seed=spec.seed),
        lambda space: space.save(outputs.design_space),
    )
    return analysis, space


@dataclass(frozen=True)
class _Try:
    """One plan: where its files lie, and which of its stages are done."""

    number: int
    outputs: Outputs
    steps: _Steps


def _tries(
    spec: Spec, analysis: Analysis, space: DesignSpace, outputs: Outputs, steps: _Steps
) -> list[_Try]:
    goal, settings = spec.effective_goal(), spec.effective_decompose()
    numbers = stages.plan_numbers(space, analysis, goal, settings=settings)
    asked = settings.plans_for(goal)
    outputs.clear_plans(keep=numbers if asked > 1 else ())
    return [_Try(i, outputs.of_plan(i, asked), steps.of_plan(i, asked)) for i in numbers]


def _decomposed(
    spec: Spec, model: keras.Model, data: Data, space: DesignSpace, tries: Sequence[_Try]
) -> list[tuple[Plan, keras.Model]]:
    goal, settings = spec.effective_goal(), spec.effective_decompose()

    @cache
    def prepared() -> stages.Prepared:
        return stages.prepare(model, data, [space], goal, settings=settings, seed=spec.seed)

    def decomposed(each: _Try) -> tuple[Plan, keras.Model]:
        outputs = each.outputs

        def save(result: tuple[Plan, keras.Model]) -> None:
            save_model(result[1], outputs.factorized)
            result[0].save(outputs.plan)

        return each.steps.once(
            "decompose",
            {"goal": goal.model_dump(mode="json"), "decompose": settings.model_dump(mode="json")},
            lambda: (Plan.load(outputs.plan), load_model(outputs.factorized)),
            lambda: prepared().build(each.number),
            save,
        )

    return [decomposed(each) for each in tries]


def _finetuned(
    spec: Spec, factorized: keras.Model, teacher: keras.Model, data: Data, each: _Try
) -> tuple[keras.Model, FinetuneRecord]:
    outputs = each.outputs

    def save(result: tuple[keras.Model, FinetuneRecord]) -> None:
        save_model(result[0], outputs.candidate)
        result[1].save(outputs.finetune)

    return each.steps.once(
        "finetune",
        {"finetune": spec.finetune.decisive()},
        lambda: (load_model(outputs.candidate), FinetuneRecord.load(outputs.finetune)),
        lambda: stages.finetune(
            factorized,
            teacher,
            data,
            settings=spec.effective_finetune(),
            seed=spec.seed,
            compiled=compiled_in(spec.model),
        ),
        save,
    )


def _judged(
    spec: Spec,
    model: keras.Model,
    candidates: Sequence[keras.Model],
    data: Data,
    tries: Sequence[_Try],
    steps: _Steps,
) -> tuple[Verdict, ...]:
    gate = spec.effective_gate()

    def save(verdicts: Sequence[Verdict]) -> None:
        for each, verdict in zip(tries, verdicts, strict=True):
            verdict.save(each.outputs.verdict)

    return steps.after(each.steps for each in tries).once(
        "validate",
        {"gate": gate.model_dump(mode="json")},
        lambda: tuple(Verdict.load(each.outputs.verdict) for each in tries),
        lambda: stages.validate_all(model, candidates, data, gate=gate, seed=spec.seed),
        save,
    )


class _Steps:
    """Remembers which stages of a run are done, so that a second run starts where it stopped.

    A stage is kept when everything that decides its result is as it was: model, data, package
    versions, and the settings of this stage and of all before it.

    Args:
        key: what the first stage depends on.
        done: key of each stage that is done; shared by all branches of a run.
        branch: which plan the stages are of, in words; empty where they are of none.
    """

    def __init__(self, file: Path, key: str, done: dict[str, str], branch: str = "") -> None:
        self._file = file
        self._key = key
        self._done = done
        self._branch = branch

    @classmethod
    def of_run(cls, outputs: Outputs, model: str, data: str) -> _Steps:
        key = digest_of([model, data, package_versions()])
        return cls(outputs.steps, key, _read_steps(outputs.steps))

    def of_plan(self, number: int, asked: int) -> _Steps:
        """The stages of one plan, of as many as were asked for, after the stages so far."""
        branch = f" of plan {number}" if asked > 1 else ""
        return _Steps(self._file, digest_of([self._key, number]), self._done, branch)

    def after(self, branches: Iterable[_Steps]) -> _Steps:
        """The stages after those of all branches."""
        key = digest_of([self._key, *(branch._key for branch in branches)])
        return _Steps(self._file, key, self._done)

    def once(
        self,
        stage: str,
        settings: dict[str, Any],
        load: Callable[[], _Result],
        make: Callable[[], _Result],
        save: Callable[[_Result], object],
    ) -> _Result:
        """Load the stage's result if it is done, else make and save it."""
        self._key = digest_of([self._key, stage, settings])
        name = stage + self._branch
        if self._done.get(name) == self._key:
            try:
                result = load()
            except LrfError as error:
                _logger.warning("%s: done before, but %s; running it again", name, error)
            else:
                _logger.info("%s: kept from the earlier run", name)
                return result
        self._note(name, None)
        with telemetry.stage(stage):
            result = make()
            save(result)
        self._note(name, self._key)
        return result

    def _note(self, stage: str, key: str | None) -> None:
        self._done.pop(stage, None)
        if key is not None:
            self._done[stage] = key
        write_atomically(self._file, json.dumps(self._done).encode())


def _read_steps(file: Path) -> dict[str, str]:
    try:
        done = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # a first run, or a file no run has finished writing
    return {str(k): str(v) for k, v in done.items()} if isinstance(done, dict) else {}
