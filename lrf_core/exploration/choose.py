"""From a goal to one choice per layer."""

from __future__ import annotations

import math
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
from lrf_core.exploration.predict import Family, MeasuredDrop, Predicted, smallest_within
from lrf_core.exploration.resources import Indices, Options
from lrf_core.exploration.vbmf import Ranks, vbmf
from lrf_core.spec import DecomposeSpec, Goal

Choices = tuple[Choice, ...]
_LOSSES = ("error", "sensitivity")
# Share of the smallest plan's loss below which no plan is tried: the range of the geometric spread.
_GENTLEST = 1e-6


@dataclass(frozen=True)
class Chosen:
    """What was decided.

    Attributes:
        rows: of the options, one per layer.
        minimized: the quantity that was minimised; empty where the policy minimises none.
        limits: on the whole model, by the name of the quantity.
        loss: the quantity that the accuracy drop was predicted from; empty where it was not.
        predicted: the drop before fine-tuning, and the plans it was calibrated on.
    """

    options: Options
    rows: Indices
    minimized: str
    limits: Limits
    loss: str = ""
    predicted: Predicted | None = None

    @property
    def choices(self) -> Choices:
        return self.options.choices(self.rows)


def choose(
    options: Options,
    goal: Goal,
    settings: DecomposeSpec,
    measured_drop: Callable[[Choices], MeasuredDrop],
    vbmf_ranks: Callable[[str], Ranks],
) -> Chosen:
    """The choices for a goal: within all its limits, of least loss (or what is to be minimised).

    An accuracy drop decides where no cost is limited, or where a cost is to be minimised: the
    smallest plan that is predicted to keep within it. Beside limits on costs these decide, and the
    gate judges the drop.

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
    family, loss = _family(options, limits, minimized, settings.policy)
    predicted = smallest_within(allowed, family, lambda rows: measured_drop(options.choices(rows)))
    return Chosen(options, predicted.rows, named, limits, loss, predicted)


def _family(options: Options, limits: Limits, minimized: str, policy: str) -> tuple[Family, str]:
    """The smallest plans by their loss, within all other limits, and which loss that is.

    Raises:
        GoalError: the other limits cannot be met.
    """
    loss = minimized if minimized in _LOSSES else "sensitivity"
    shrunk = "params" if minimized in _LOSSES else minimized

    def smallest(limits: Limits) -> Indices:
        if policy == "threshold":
            return threshold(options, thresholds_within(options, limits)[-1])
        return knapsack(options, limits, shrunk)

    def within(limit: float) -> Indices | None:
        both = (
            limits if math.isinf(limit) else {**limits, loss: min(limit, limits.get(loss, limit))}
        )
        try:
            rows = smallest(both)
        except GoalError:  # the other limits can be met, but not with so little loss
            return None
        return None if np.array_equal(rows, options.stays()) else rows

    largest = options.total(loss, smallest(limits))
    least = options.total(loss, knapsack(options, limits, loss))
    if least <= 0:
        positive = options.amounts[loss][options.amounts[loss] > 0]
        least = float(positive.min()) if len(positive) else largest
    family = Family(
        within=within,
        loss=lambda rows: options.total(loss, rows),
        size=lambda rows: options.total(shrunk, rows),
        gentlest=min(max(least, _GENTLEST * largest), largest),
    )
    return family, loss


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
