"""From a goal to one choice per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lrf_core.artifacts import Candidate, Choice, Cost
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import (
    Budget,
    LayerOptions,
    error,
    knapsack,
    options_by_layer,
    sensitivity,
    threshold,
    threshold_for_budget,
    total_after,
)
from lrf_core.progress import work
from lrf_core.spec import DecomposeSpec, Goal

# Plans that are tried when the goal is an accuracy drop.
TRIED_PLANS = 7

Choices = tuple[Choice, ...]


def choose(
    candidates: Sequence[Candidate],
    layers: dict[str, Cost],
    before: Cost,
    goal: Goal,
    settings: DecomposeSpec,
    measured_drop: Callable[[Choices], float],
) -> tuple[Choices, float | None]:
    """The choices for a goal, and the accuracy drop measured where the goal asked for one.

    Args:
        layers: what each explored layer costs as it is.
        before: cost of the whole model.
        measured_drop: accuracy points that choices lose before fine-tuning.

    Raises:
        GoalError: no plan meets the goal.
    """
    loss = error if settings.minimize == "error" else sensitivity
    options = options_by_layer(_similar_enough(candidates, goal), layers, loss)

    def allocate(budget: Budget) -> Choices:
        if settings.policy == "threshold":
            return threshold_for_budget(options, before, budget)
        return knapsack(options, before, budget, loss)

    if goal.params_reduction is not None or goal.macs_reduction is not None:
        return allocate(_budget(goal, before)), None
    if goal.similarity is not None:
        return threshold(options, goal.similarity), None
    points = goal.max_accuracy_drop if goal.max_accuracy_drop is not None else 1.0
    allowed = points / (1 - settings.expected_recovery)
    return _smallest_within(allowed, allocate, measured_drop, before, options)


def _similar_enough(candidates: Sequence[Candidate], goal: Goal) -> Sequence[Candidate]:
    least = goal.similarity
    kept = [c for c in candidates if least is None or c.similarity >= least]
    if not kept:
        asked = f" with similarity {least} or more" if least is not None else ""
        raise GoalError(
            f"no layer has a candidate that is smaller than the layer{asked}; there is nothing to "
            "compress with these methods"
        )
    return kept


def _smallest_within(
    allowed: float,
    allocate: Callable[[Budget], Choices],
    measured_drop: Callable[[Choices], float],
    before: Cost,
    options: Sequence[LayerOptions],
) -> tuple[Choices, float]:
    """Bisect the parameter budget for the smallest plan that loses at most `allowed` points."""
    low = float(total_after(threshold(options, 0.0), before).params)
    high = float(before.params)
    best: tuple[Choices, float] | None = None
    gentlest = float("inf")
    with work("Trying plans", TRIED_PLANS) as advance:
        for _ in range(TRIED_PLANS):
            params = (low + high) / 2
            choices = allocate(Budget(params=params))
            drop = measured_drop(choices)
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
