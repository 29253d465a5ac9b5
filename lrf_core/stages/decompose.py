"""decompose: choose one candidate per layer for the goal, and build the factorized model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from lrf_core.artifacts import Candidate, Choice, Cost, DesignSpace, Lineage, Plan
from lrf_core.calibration import collect_moments
from lrf_core.data import Data
from lrf_core.errors import ArtifactError, GoalError, SpliceError
from lrf_core.exploration.allocate import (
    Budget,
    LayerOptions,
    Loss,
    error,
    knapsack,
    options_by_layer,
    predicted_loss,
    sensitivity,
    threshold,
    threshold_for_budget,
    total_after,
)
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.merge import merged
from lrf_core.exploration.refit import refit_in_order
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import model_digest
from lrf_core.models.measure import accuracy
from lrf_core.models.splice import check_same_answers
from lrf_core.models.trace import walk
from lrf_core.progress import work
from lrf_core.spec import DecomposeSpec, ExploreSpec, Goal
from lrf_core.stages.explore import calibration_samples, samples_digest

# Plans that are measured when the goal is an accuracy drop, and the samples each is measured on.
TRIED_PLANS = 7
TRIAL_SAMPLES = 2048
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

    A goal of `max_accuracy_drop` alone is met by trying plans along the frontier on training
    samples. Together with other goals, those decide, and the gate judges the drop.

    Args:
        spaces: the shards of one exploration of this model with this data and seed.

    Returns:
        The plan, and the factorized model with data-aware factors, not yet fine-tuned.

    Raises:
        GoalError: no plan meets the goal.
        ArtifactError: the design spaces do not belong together, or not to this model or data.
        SpliceError: the rebuilt model does not answer as its factors say.
    """
    settings = settings or DecomposeSpec()
    digest = model_digest(model)
    space = merged(spaces)
    if space.model_digest != digest:
        raise ArtifactError(
            f"the design space is of model {space.model_digest[:12]}, not of '{model.name}' "
            f"({digest[:12]}); run explore on this model"
        )
    explored = ExploreSpec.model_validate(space.lineage.settings["explore"])
    samples = calibration_samples(data, explored.samples, seed)
    if samples_digest(samples) != space.calibration_digest:
        raise ArtifactError(
            "the design space was made with other calibration samples; give the same data and "
            "seed as to explore"
        )
    records = {
        record.name: record for record in take_inventory(model, explored.methods, samples.shape[1:])
    }
    before = model_cost(model, samples.shape[1:])
    costs = {name: record.cost for name, record in records.items() if name in space.layers}
    loss = error if settings.minimize == "error" else sensitivity
    options = _options(space.candidates, costs, goal, loss)
    layers = {path: layer for path, layer in walk(model) if path in costs}
    moments = collect_moments(model, layers, samples, batch_size=explored.batch_size, seed=seed)
    factorizer = Factorizer(model, records, moments)
    choices, drop = _choose(factorizer, model, data, options, before, goal, settings, loss, seed)
    replaced = [choice.candidate for choice in choices if choice.candidate]
    if settings.refit:
        refit_in_order(
            factorizer, model, replaced, samples, batch_size=explored.batch_size, seed=seed
        )
    factorized = factorizer.factorized(replaced)
    check_same_answers(
        factorizer.model_with_kernels(replaced), factorized, samples[:CHECKED_SAMPLES]
    )
    after = total_after(choices, before)
    counted = model_cost(factorized, samples.shape[1:])
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
        predicted_loss=predicted_loss(choices),
        predicted_drop=drop,
    )
    return plan, factorized


def _options(
    candidates: Sequence[Candidate], before: dict[str, Cost], goal: Goal, loss: Loss
) -> list[LayerOptions]:
    if goal.similarity is not None:
        candidates = [c for c in candidates if c.similarity >= goal.similarity]
    if not candidates:
        raise GoalError(
            "no layer has a candidate that is smaller than the layer"
            + (f" with similarity {goal.similarity} or more" if goal.similarity else "")
            + "; there is nothing to compress with these methods"
        )
    return options_by_layer(candidates, before, loss)


def _choose(
    factorizer: Factorizer,
    model: keras.Model,
    data: Data,
    options: list[LayerOptions],
    before: Cost,
    goal: Goal,
    settings: DecomposeSpec,
    loss: Loss,
    seed: int,
) -> tuple[tuple[Choice, ...], float | None]:
    """The choices, and the accuracy drop measured for them where the goal asked for one."""

    def allocate(budget: Budget) -> tuple[Choice, ...]:
        if settings.policy == "threshold":
            return threshold_for_budget(options, before, budget)
        return knapsack(options, before, budget, loss)

    if goal.params_reduction is not None or goal.macs_reduction is not None:
        return allocate(_budget(goal, before)), None
    if goal.similarity is not None:
        return threshold(options, goal.similarity), None
    allowed = goal.max_accuracy_drop if goal.max_accuracy_drop is not None else 1.0
    trial = data.train.sample(TRIAL_SAMPLES, seed + 1)
    baseline = accuracy(model, trial)

    def drop_of(choices: tuple[Choice, ...]) -> float:
        replaced = [choice.candidate for choice in choices if choice.candidate]
        return baseline - accuracy(factorizer.model_with_kernels(replaced), trial)

    return _smallest_within(
        allowed / (1 - settings.expected_recovery),
        lambda params: allocate(Budget(params=params)),
        drop_of,
        before,
        total_after(threshold(options, 0.0), before),
    )


def _smallest_within(
    allowed: float,
    allocate: Callable[[float], tuple[Choice, ...]],
    drop_of: Callable[[tuple[Choice, ...]], float],
    before: Cost,
    smallest: Cost,
) -> tuple[tuple[Choice, ...], float]:
    """Bisect the parameter budget for the smallest plan that loses at most `allowed` points."""
    low, high = float(smallest.params), float(before.params)
    best: tuple[tuple[Choice, ...], float] | None = None
    gentlest = float("inf")
    with work("Trying plans", TRIED_PLANS) as advance:
        for _ in range(TRIED_PLANS):
            params = (low + high) / 2
            choices = allocate(params)
            drop = drop_of(choices)
            gentlest = min(gentlest, drop)
            if drop <= allowed:
                best, high = (choices, drop), params
            else:
                low = params
            advance(1)
    if best is None:
        raise GoalError(
            f"no plan keeps the accuracy drop before fine-tuning within {allowed:.2f} points (the "
            f"gentlest tried loses {gentlest:.2f}); allow a larger max_accuracy_drop"
        )
    return best


def _budget(goal: Goal, before: Cost) -> Budget:
    def limit(whole: int, reduction: float | None) -> float | None:
        return None if reduction is None else whole * (1 - reduction)

    return Budget(
        params=limit(before.params, goal.params_reduction),
        macs=limit(before.macs, goal.macs_reduction),
    )
