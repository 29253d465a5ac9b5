"""The whole way in one process: analyze, explore, decompose, finetune, validate, publish."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import keras

from lrf_core import stages
from lrf_core.artifacts import (
    Analysis,
    Artifact,
    DesignSpace,
    FinetuneRecord,
    Plan,
    Verdict,
    digest_of,
)
from lrf_core.artifacts import versions as package_versions
from lrf_core.atomic import write_atomically
from lrf_core.data import Data, open_data
from lrf_core.errors import LrfError, ModelError
from lrf_core.exploration.cache import open_cache
from lrf_core.latency import LatencyTable, measured_first
from lrf_core.models.compiled import compiled_in
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.outputs import Outputs, Run, write_lineage
from lrf_core.report import write_report
from lrf_core.spec import Spec
from lrf_core.storage import open_store

_logger = logging.getLogger("lrf")
_Result = TypeVar("_Result")


def compress(spec: Spec) -> Run:
    """Compress, fine-tune, judge, and publish what passes, or what a person let through.

    Every artifact is written to `spec.out` as soon as it is there. Run again with the same spec
    after an interruption, and finished stages are not repeated.

    Raises:
        LrfError: bad input of any kind; see `lrf_core.errors`.
    """
    outputs = Outputs(Path(spec.out))
    model = load_model(spec.model, spec.weights)
    if len(model.outputs) > 1:
        raise ModelError(
            f"model '{model.name}' has {len(model.outputs)} outputs; fine-tuning and the gate "
            "judge models with one. Use lrf analyze, explore and decompose, and train with your "
            "own losses"
        )
    data = open_data(spec.data, model, spec.seed)
    store = store_uri(spec)
    open_store(store).check()
    exploring = spec.effective_explore()
    if exploring.cache:
        open_cache(exploring.cache)
    steps = _Steps(outputs, model_digest(model), data.digest)
    analysis, space = _explored(spec, model, data, outputs, steps)
    plan, factorized = _decomposed(spec, model, data, space, outputs, steps)
    record, candidate = _finetuned(spec, factorized, model, data, outputs, steps)
    verdict = steps.once(
        "validate",
        {"gate": spec.effective_gate().model_dump(mode="json")},
        lambda: Verdict.load(outputs.verdict),
        lambda: stages.validate(model, candidate, data, gate=spec.effective_gate(), seed=spec.seed),
        lambda verdict: verdict.save(outputs.verdict),
    )
    override = stages.override_asked(verdict, spec.publish.override)
    outputs.override.unlink(missing_ok=True)  # of an earlier verdict
    made: list[Artifact | DesignSpace] = [analysis, space, plan, record, verdict]
    if override:
        override.save(outputs.override)
        made.append(override)
    write_lineage(outputs.lineage, *made)
    write_report(
        outputs.report,
        analysis=analysis,
        plan=plan,
        finetune=record,
        verdict=verdict,
        override=override,
    )
    release = None
    if verdict.passed or override:
        release = stages.publish(
            candidate,
            verdict,
            store,
            name=release_name(spec, analysis),
            attachments=outputs.attachments(),
            override=override,
        )
        write_lineage(outputs.lineage, *made, release)
    return Run(outputs, analysis, plan, record, verdict, release)


def store_uri(spec: Spec) -> str:
    """Where a model that passed goes."""
    return spec.publish.to or Outputs(Path(spec.out)).release.absolute().as_uri()


def release_name(spec: Spec, analysis: Analysis) -> str:
    """What the released model is called."""
    return spec.publish.name or analysis.model_name


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


def _decomposed(
    spec: Spec,
    model: keras.Model,
    data: Data,
    space: DesignSpace,
    outputs: Outputs,
    steps: _Steps,
) -> tuple[Plan, keras.Model]:
    def save(result: tuple[Plan, keras.Model]) -> None:
        save_model(result[1], outputs.factorized)
        result[0].save(outputs.plan)

    goal, settings = spec.effective_goal(), spec.effective_decompose()
    return steps.once(
        "decompose",
        {"goal": goal.model_dump(mode="json"), "decompose": settings.model_dump(mode="json")},
        lambda: (Plan.load(outputs.plan), load_model(outputs.factorized)),
        lambda: stages.decompose(model, data, [space], goal, settings=settings, seed=spec.seed),
        save,
    )


def _finetuned(
    spec: Spec,
    factorized: keras.Model,
    teacher: keras.Model,
    data: Data,
    outputs: Outputs,
    steps: _Steps,
) -> tuple[FinetuneRecord, keras.Model]:
    def save(result: tuple[keras.Model, FinetuneRecord]) -> None:
        save_model(result[0], outputs.candidate)
        result[1].save(outputs.finetune)

    candidate, record = steps.once(
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
    return record, candidate


class _Steps:
    """Remembers which stages of a run are done, so that a second run starts where it stopped.

    A stage is kept when everything that decides its result is as it was: model, data, package
    versions, and the settings of this stage and of all before it.
    """

    def __init__(self, outputs: Outputs, model: str, data: str) -> None:
        self._file = outputs.steps
        self._key = digest_of([model, data, package_versions()])
        self._done: dict[str, str] = _read_steps(self._file)

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
        if self._done.get(stage) == self._key:
            try:
                result = load()
            except LrfError as error:
                _logger.warning("%s: done before, but %s; running it again", stage, error)
            else:
                _logger.info("%s: kept from the earlier run", stage)
                return result
        self._note(stage, None)
        result = make()
        save(result)
        self._note(stage, self._key)
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
