"""decompose: choose one candidate per layer for the goal, and build the factorized model."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from lrf_core.artifacts import DesignSpace, DropCalibration, Lineage, Plan
from lrf_core.calibration import calibration_samples, collect_moments, samples_digest
from lrf_core.data import Data, Split
from lrf_core.errors import ArtifactError, SpliceError
from lrf_core.exploration.allocate import predicted_loss, total_after
from lrf_core.exploration.choose import Choices, Chosen, choose
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.merge import check_whole, merged
from lrf_core.exploration.predict import MeasuredDrop
from lrf_core.exploration.refit import refit_in_order
from lrf_core.exploration.resources import layers_of, options_of
from lrf_core.exploration.vbmf import layer_ranks
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import model_digest, weight_bytes
from lrf_core.models.splice import check_same_answers
from lrf_core.models.trace import walk
from lrf_core.models.unroll import as_graph
from lrf_core.spec import DecomposeSpec, ExploreSpec, Goal
from lrf_core.stages.trial import Trial, trial_samples
from lrf_core.structure import SampleShape, sample_shape

CHECKED_SAMPLES = 16


def decompose(
    model: keras.Model,
    data: Data,
    spaces: Sequence[DesignSpace],
    goal: Goal,
    *,
    settings: DecomposeSpec | None = None,
    seed: int = 0,
) -> tuple[Plan, keras.Model]:
    """Choose a plan for the goal and carry it out.

    All limits of the goal hold together. A `max_accuracy_drop` without a limit on costs, or with a
    cost to minimise, is met by a curve from predicted loss to drop, calibrated on a few plans that
    are tried on training samples; beside limits on costs those decide, and the gate judges the
    drop.

    Args:
        spaces: the shards of one exploration of this model with this data and seed.

    Returns:
        The plan, and the factorized model with data-aware factors, not yet fine-tuned.

    Raises:
        GoalError: no plan meets the goal.
        ArtifactError: the design spaces do not belong together, or not to this model or data, or a
            shard is missing.
        SpliceError: the rebuilt model does not answer as its factors say.
    """
    settings = settings or DecomposeSpec()
    model = as_graph(model)
    digest = model_digest(model)
    space = merged(spaces)
    check_whole(space)
    explored = ExploreSpec.model_validate(space.lineage.settings["explore"])
    samples = calibration_samples(data, explored.samples, seed)
    _check_origin(space, model, digest, samples)
    few = samples.read(np.arange(min(CHECKED_SAMPLES, samples.count)))
    factorizer = _factorizer(model, space, explored, samples, sample_shape(few), seed)
    before = model_cost(model, sample_shape(few))
    records = factorizer.records
    layers = layers_of(records.values(), space.latency_ms)
    trial = Trial(model, trial_samples(data.train, samples, seed + 1))

    def drop_of(choices: Choices) -> MeasuredDrop:
        replaced = [choice.candidate for choice in choices if choice.candidate]
        return trial.drop(factorizer.model_with_kernels(replaced))

    chosen_plan = choose(
        options_of(space.candidates, layers, before, weight_bytes(model)),
        goal,
        settings,
        drop_of,
        lambda path: layer_ranks(factorizer.kernel(path), records[path].kernel_shape),
    )
    choices, options = chosen_plan.choices, chosen_plan.options
    replaced = [choice.candidate for choice in choices if choice.candidate]
    if settings.refit:
        in_memory, _ = samples.arrays()
        refit_in_order(
            factorizer, model, replaced, in_memory, batch_size=explored.batch_size, seed=seed
        )
    factorized = factorizer.factorized(replaced)
    check_same_answers(factorizer.model_with_kernels(replaced), factorized, few)
    after = total_after(choices, before)
    counted = model_cost(factorized, sample_shape(few))
    if counted != after:
        raise SpliceError(f"the plan predicts {after}, the rebuilt model has {counted}")
    plan = Plan(
        lineage=Lineage(
            inputs={
                "model": digest,
                "data": data.digest,
                "design_space": space.lineage.key(),
            },
            settings={
                "goal": goal.model_dump(mode="json"),
                "decompose": settings.model_dump(mode="json"),
                "seed": seed,
            },
            parent=digest,
        ),
        policy=settings.policy,
        model_digest=digest,
        factorized_digest=model_digest(factorized),
        choices=choices,
        before=before,
        after=after,
        minimized=chosen_plan.minimized,
        limits=dict(chosen_plan.limits),
        totals_before=options.totals(options.stays()),
        totals_after=options.totals(chosen_plan.rows),
        predicted_loss=predicted_loss(choices),
        predicted_drop=chosen_plan.predicted.drop if chosen_plan.predicted else None,
        calibration=_calibration(chosen_plan, trial, factorized, settings.expected_recovery),
    )
    return plan, factorized


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
    """Of the layers explored, in the order of the model."""
    inventory = take_inventory(model, explored.methods, shape)
    records = {record.name: record for record in inventory if record.name in space.layers}
    layers = {path: layer for path, layer in walk(model) if path in records}
    moments = collect_moments(
        model, layers, samples, batch_size=explored.batch_size, seed=seed, loss=explored.loss
    )
    return Factorizer(model, records, moments)


def _calibration(
    chosen: Chosen, trial: Trial, factorized: keras.Model, recovery: float
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
