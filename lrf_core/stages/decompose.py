"""decompose: choose one candidate per layer for the goal, and build the factorized model.

A goal has one plan, or several that lie around it, each with a number of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from lrf_core import methods, similarity
from lrf_core.artifacts import (
    Analysis,
    Candidate,
    Cost,
    DesignSpace,
    DropCalibration,
    Lineage,
    Plan,
)
from lrf_core.calibration import calibration_samples, moments_of_all, samples_digest
from lrf_core.data import Data, Split
from lrf_core.errors import ArtifactError, GoalError, SpliceError
from lrf_core.exploration.allocate import predicted_loss, total_after
from lrf_core.exploration.choose import Choices, Chosen, choose, plan_count
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.fitted import FittedPlans
from lrf_core.exploration.merge import check_whole, merged
from lrf_core.exploration.predict import MeasuredDrop
from lrf_core.exploration.refit import Refit
from lrf_core.exploration.resources import layers_of, options_of, options_of_run
from lrf_core.exploration.vbmf import layer_ranks
from lrf_core.exploration.verify import Scores
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import model_digest, weight_bytes
from lrf_core.models.splice import check_same_answers
from lrf_core.models.structure import Samples, SampleShape, sample_shape
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional
from lrf_core.spec import DecomposeSpec, ExploreSpec, Goal
from lrf_core.stages.trial import AccuracyProbe, trial_samples

CHECKED_SAMPLES = 16

_logger = logging.getLogger("lrf")


def decompose(
    model: keras.Model,
    data: Data,
    spaces: Sequence[DesignSpace],
    goal: Goal,
    *,
    settings: DecomposeSpec | None = None,
    seed: int = 0,
    plan: int = 0,
) -> tuple[Plan, keras.Model]:
    """Choose a plan for the goal and carry it out.

    All limits of the goal hold together. A `max_accuracy_drop` without a limit on costs, or with a
    cost to minimise, is met by a curve from predicted loss to drop, calibrated on a few plans that
    are tried on training samples; beside limits on costs those decide, and the gate judges the
    drop.

    Args:
        model: the original; it is not changed.
        data: that of the exploration.
        spaces: the shards of one exploration of this model with this data and seed.
        goal: limits that the plan must meet.
        settings: how candidates are chosen, and whether layers are refitted.
        seed: that of the exploration.
        plan: number of the plan, see `plan_numbers`; 0 is the one that the goal asks for. The same
            number is the same plan, whichever others are built.

    Returns:
        The plan, and the factorized model with data-aware factors, not yet fine-tuned.

    Raises:
        GoalError: no plan meets the goal, or there is none of this number.
        ArtifactError: the design spaces do not belong together, or not to this model or data, or a
            shard is missing, or what is chosen does not cost or answer what they say.
        SpliceError: the rebuilt model does not answer as its factors say.
    """
    return prepare(model, data, spaces, goal, settings=settings, seed=seed).build(plan)


def plan_numbers(
    space: DesignSpace, analysis: Analysis, goal: Goal, *, settings: DecomposeSpec | None = None
) -> list[int]:
    """The numbers of the plans that `decompose` can build, from 0: as many as the settings ask for,
    or, with a logged line, as many as the design space has that differ.

    Args:
        space: of all layers.
        analysis: of the same model.
        goal: limits that the plans must meet.
        settings: how many plans to build, and how candidates are chosen.

    Raises:
        GoalError: the limits of the goal cannot be met, whatever the drop.
        ArtifactError: the design space is not of the model that was analyzed.
    """
    settings = settings or DecomposeSpec()
    asked = settings.plans_for(goal)
    count = plan_count(options_of_run(space, analysis), goal, settings)
    if count < asked:
        _logger.warning("%d plans are asked for; there are %d that differ enough", asked, count)
    return list(range(count))


def prepare(
    model: keras.Model,
    data: Data,
    spaces: Sequence[DesignSpace],
    goal: Goal,
    *,
    settings: DecomposeSpec | None = None,
    seed: int = 0,
) -> Prepared:
    """What all plans for a goal have in common, for building several; otherwise as `decompose`."""
    settings = settings or DecomposeSpec()
    model = to_functional(model)
    space = merged(spaces)
    check_whole(space)
    explored = ExploreSpec.model_validate(space.lineage.settings["explore"])
    samples = calibration_samples(data, explored.samples, seed)
    digest = model_digest(model)
    _check_origin(space, model, digest, samples)
    few = samples.read(np.arange(min(CHECKED_SAMPLES, samples.count)))
    factorizer = _factorizer(model, space, explored, samples, sample_shape(few), seed)
    before = model_cost(model, sample_shape(few))
    records = factorizer.records
    layers = layers_of(records.values(), space.latency_ms)
    trial = AccuracyProbe(model, trial_samples(data.train, samples, seed + 1))

    def refit() -> Refit:
        layers = {path: layer for path, layer in walk(model) if path in records}
        in_memory, _ = samples.arrays()
        return Refit(
            model,
            factorizer,
            layers,
            in_memory,
            batch_size=explored.batch_size,
            seed=seed,
            memory_bytes=explored.memory_bytes,
        )

    scores = Scores(model, factorizer, space.similarity)
    is_refitted = settings.refit and explored.factors == "data"
    plans = FittedPlans(model, factorizer, scores, refit if is_refitted else None)

    def drop_of(choices: Choices) -> MeasuredDrop:
        return trial.drop(plans.answering(_replaced(choices)))

    chosen = choose(
        options_of(space.candidates, layers, before, weight_bytes(model)),
        goal,
        settings,
        drop_of,
        lambda path: layer_ranks(factorizer.kernel(path), records[path].kernel_shape),
    )
    lineage = Lineage(
        inputs={"model": digest, "data": data.digest, "design_space": space.lineage.key()},
        settings={
            "goal": goal.model_dump(mode="json"),
            "decompose": settings.model_dump(mode="json"),
            "seed": seed,
        },
        parent=digest,
    )
    return Prepared(
        lineage=lineage,
        settings=settings,
        few=few,
        before=before,
        plans=plans,
        trial=trial,
        chosen=chosen,
        asked=settings.plans_for(goal),
    )


@dataclass(frozen=True)
class Prepared:
    """The plans for a goal, chosen, and what they are built with.

    Attributes:
        lineage: of all plans, except their number.
        few: the calibration samples that a rebuilt model is checked on.
        chosen: by number.
        asked: how many plans were asked for.
    """

    lineage: Lineage
    settings: DecomposeSpec
    few: Samples
    before: Cost
    plans: FittedPlans
    trial: AccuracyProbe
    chosen: tuple[Chosen, ...]
    asked: int

    def build(self, number: int) -> tuple[Plan, keras.Model]:
        """One plan and its factorized model. Raises GoalError: no such number; SpliceError."""
        if not 0 <= number < len(self.chosen):
            raise GoalError(
                f"there is no plan {number}; {len(self.chosen)} were found that differ, numbered "
                f"from 0, and {self.asked} asked for (decompose.plans)"
            )
        chosen = self.chosen[number]
        factorized = self._factorized(_replaced(chosen.choices))
        after = total_after(chosen.choices, self.before)
        counted = model_cost(factorized, sample_shape(self.few))
        if counted != after:
            raise SpliceError(f"the plan predicts {after}, the rebuilt model has {counted}")
        options, settings = chosen.options, {**self.lineage.settings, "plan": number}
        plan = Plan(
            lineage=self.lineage.model_copy(update={"settings": settings}),
            policy=self.settings.policy,
            model_digest=self.lineage.inputs["model"],
            factorized_digest=model_digest(factorized),
            choices=chosen.choices,
            before=self.before,
            after=after,
            minimized=chosen.minimized,
            limits=dict(chosen.limits),
            totals_before=options.totals(options.unchanged()),
            totals_after=options.totals(chosen.rows),
            predicted_loss=predicted_loss(chosen.choices),
            predicted_drop=chosen.predicted.drop if chosen.predicted else None,
            calibration=_calibration(
                chosen, self.trial, factorized, self.settings.expected_recovery
            ),
            number=number,
            asked=self.asked,
        )
        return plan, factorized

    def _factorized(self, replaced: Sequence[Candidate]) -> keras.Model:
        factorized = self.plans.factorized(replaced)
        check_same_answers(self.plans.answering(replaced), factorized, self.few)
        return factorized


def _replaced(choices: Choices) -> list[Candidate]:
    return [choice.candidate for choice in choices if choice.candidate]


def _check_origin(space: DesignSpace, model: keras.Model, digest: str, samples: Split) -> None:
    if space.model_digest != digest:
        raise ArtifactError(
            f"the design space is of model {space.model_digest[:12]}, not of '{model.name}' "
            f"({digest[:12]}); run explore on this model"
        )
    if samples_digest(samples) != space.calibration_digest:
        raise ArtifactError(
            "the design space was made with other calibration samples; give the same data and "
            "seed as to explore"
        )


def _factorizer(
    model: keras.Model,
    space: DesignSpace,
    explored: ExploreSpec,
    samples: Split,
    shape: SampleShape,
    seed: int,
) -> Factorizer:
    """Of the layers explored, in the order of the model, within the memory that exploring them had.

    The moments are those that they were explored with, to the last bit.
    """
    inventory = take_inventory(model, methods.chosen(explored.methods), shape)
    records = {record.name: record for record in inventory if record.name in space.layers}
    moments = moments_of_all(
        model,
        list(records.values()),
        samples,
        memory_bytes=explored.memory_bytes,
        batch_size=explored.batch_size,
        seed=seed,
        loss=explored.loss,
        window=similarity.get(explored.similarity).window,
    )
    return Factorizer(model, records, moments, explored.memory_bytes, explored.factors)


def _calibration(
    chosen: Chosen, trial: AccuracyProbe, factorized: keras.Model, recovery: float
) -> DropCalibration | None:
    """What the predicted drop rests on, beside the drop of the model that was built."""
    if chosen.predicted is None:
        return None
    built = trial.drop(factorized)
    return DropCalibration(
        loss=chosen.loss,
        points=chosen.predicted.points,
        samples=trial.samples.count,
        labelled=trial.labelled,
        measured_drop=built.points,
        standard_error=built.standard_error,
        expected_drop=chosen.predicted.drop * (1 - recovery),
    )
