"""From a goal to one choice per layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lrf_core.artifacts import Choice
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import (
    Limits,
    check_limits,
    knapsack,
    limits_of,
    threshold,
    thresholds_within,
)
from lrf_core.exploration.resources import Indices, Options
from lrf_core.exploration.vbmf import Ranks, vbmf
from lrf_core.progress import work
from lrf_core.spec import DecomposeSpec, Goal

# Plans that are tried when the goal is an accuracy drop.
TRIED_PLANS = 7

Choices = tuple[Choice, ...]
_LOSSES = ("error", "sensitivity")


@dataclass(frozen=True)
class Chosen:
    """What was decided.

    Attributes:
        rows: of the options, one per layer.
        minimized: the quantity that was minimised; empty where the policy minimises none.
        limits: on the whole model, by the name of the quantity.
        drop: accuracy points lost before fine-tuning, where the goal asked for a prediction.
    """

    options: Options
    rows: Indices
    minimized: str
    limits: Limits
    drop: float | None = None

    @property
    def choices(self) -> Choices:
        return self.options.choices(self.rows)


def choose(
    options: Options,
    goal: Goal,
    settings: DecomposeSpec,
    measured_drop: Callable[[Choices], float],
    vbmf_ranks: Callable[[str], Ranks],
) -> Chosen:
    """The choices for a goal: within all its limits, of least loss (or what is to be minimised).

    An accuracy drop decides where no cost is limited, or where a cost is to be minimised: the
    smallest plan within it. Beside limits on costs these decide, and the gate judges the drop.

    Args:
        measured_drop: accuracy points that choices lose before fine-tuning.
        vbmf_ranks: the ranks of a layer by variational Bayes; asked for by that policy only.

    Raises:
        GoalError: no plan meets the goal.
    """
    options = _similar_enough(options, goal)
    minimized = settings.minimize or goal.minimized("sensitivity")
    if minimized not in _LOSSES and not goal.limits_losses():
        raise GoalError(
            f"decompose.minimize {minimized} needs a limit on the loss, or every layer would get "
            "its smallest candidate; set max_accuracy_drop, max_predicted_loss or similarity"
        )
    limits = limits_of(goal, options)
    if settings.policy == "vbmf":
        rows = vbmf(options, vbmf_ranks)
        check_limits(options, limits, rows, settings.policy)
        return Chosen(options, rows, "", limits)

    def allocate(more: Limits) -> Indices:
        within = {**limits, **more}
        if settings.policy == "threshold":
            return threshold(options, thresholds_within(options, within)[0])
        return knapsack(options, within, minimized if minimized in _LOSSES else "sensitivity")

    named = "" if settings.policy == "threshold" else minimized
    by_costs = goal.limits_costs() and minimized in _LOSSES
    if goal.max_accuracy_drop is None or by_costs:
        if settings.policy == "knapsack":
            rows = knapsack(options, limits, minimized)
        else:
            levels = thresholds_within(options, limits)
            rows = threshold(options, levels[0] if goal.limits_costs() else levels[-1])
        return Chosen(options, rows, named, limits)
    allowed = goal.max_accuracy_drop / (1 - settings.expected_recovery)
    shrunk = minimized if minimized not in _LOSSES else "params"
    smallest = knapsack(options, limits, shrunk)
    rows, drop = _smallest_within(
        allowed,
        lambda limit: allocate({shrunk: min(limit, limits.get(shrunk, limit))}),
        lambda rows: measured_drop(options.choices(rows)),
        (options.total(shrunk, smallest), options.before(shrunk)),
    )
    return Chosen(options, rows, named, limits, drop)


def _similar_enough(options: Options, goal: Goal) -> Options:
    least = goal.similarity
    kept = np.array(
        [c is None or least is None or c.similarity >= least for c in options.candidates]
    )
    if kept.sum() == len(options.layers):
        asked = f" with similarity {least} or more" if least is not None else ""
        raise GoalError(
            f"no layer has a candidate that is smaller than the layer{asked}; there is nothing to "
            "compress with these methods"
        )
    return options.where(kept)


def _smallest_within(
    allowed: float,
    allocate: Callable[[float], Indices],
    drop_of: Callable[[Indices], float],
    between: tuple[float, float],
) -> tuple[Indices, float]:
    """Bisect a limit for the smallest plan that loses at most `allowed` points.

    Args:
        allocate: the plan of least loss within a limit.
        drop_of: points that a plan loses.
        between: the total of the smallest plan, and of the model as it is.
    """
    low, high = between
    best: tuple[Indices, float] | None = None
    gentlest = float("inf")
    rows: Indices | None
    with work("Trying plans", TRIED_PLANS) as advance:
        for _ in range(TRIED_PLANS):
            limit = (low + high) / 2
            try:
                rows = allocate(limit)
                drop = drop_of(rows)
            except GoalError:  # a policy that is not exact may find no plan near the smallest
                rows, drop = None, float("inf")
            gentlest = min(gentlest, drop)
            if rows is not None and drop <= allowed:
                best, high = (rows, drop), limit
            else:
                low = limit
            advance(1)
    if best is None:
        raise GoalError(
            f"no plan keeps the accuracy drop before fine-tuning within {allowed:.2f} points (the "
            f"gentlest tried loses {gentlest:.2f}); allow a larger max_accuracy_drop"
        )
    return best
