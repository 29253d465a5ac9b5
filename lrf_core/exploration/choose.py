"""From a goal to one choice per layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lrf_core.artifacts import Choice, TriedPlan
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import (
    Limits,
    check_limits,
    knapsack,
    limits_of,
    threshold,
    thresholds_within,
)
from lrf_core.exploration.predict import (
    Family,
    MeasuredDrop,
    Predicted,
    fit_curve,
    smallest_within,
)
from lrf_core.exploration.resources import Indices, OptionTable
from lrf_core.exploration.spread import PlanSequence, distinct
from lrf_core.exploration.vbmf import Ranks, vbmf
from lrf_core.spec import DecomposeSpec, Goal, Minimized

Choices = tuple[Choice, ...]
_LOSSES = ("error", "sensitivity")
# Share of the smallest plan's loss below which no plan is tried: the range of the geometric spread.
_GENTLEST = 1e-6
# Several plans share a range out evenly by ratio, its ends left out. Of the drop, and of losses, a
# quarter to four times: with three plans half and twice, which is right where fine-tuning wins back
# from a half to seven eighths instead of the three quarters expected. Of limits on costs, from all
# that plan 0 spends down to half of it.
_LOSS_RANGE, _COST_RANGE = 4.0, 2.0


@dataclass(frozen=True)
class Chosen:
    """What was decided for one plan.

    Attributes:
        rows: of the options, one per layer.
        minimized: the quantity that was minimised; empty if the policy minimises none.
        limits: on the whole model, by the name of the quantity.
        loss: the quantity that the accuracy drop was predicted from; empty if it was not.
        predicted: the drop before fine-tuning, and the plans it was calibrated on.
    """

    options: OptionTable
    rows: Indices
    minimized: str
    limits: Limits
    loss: str = ""
    predicted: Predicted | None = None

    @property
    def choices(self) -> Choices:
        return self.options.choices(self.rows)


def choose(
    options: OptionTable,
    goal: Goal,
    settings: DecomposeSpec,
    measured_drop: Callable[[Choices], MeasuredDrop],
    vbmf_ranks: Callable[[str], Ranks],
) -> tuple[Chosen, ...]:
    """The choices for a goal: within all its limits, of least loss (or what is to be minimised).

    An accuracy drop decides where no cost is limited, or where a cost is to be minimised: the
    smallest plan that is predicted to keep within it. Beside limits on costs these decide, and the
    gate judges the drop.

    Args:
        measured_drop: accuracy points that choices lose before fine-tuning.
        vbmf_ranks: the ranks of a layer by variational Bayes; asked for by that policy only.

    Returns:
        The plan for the goal, and where the settings ask for several the others, all different: as
        many as asked for, or as there are. If a drop decides they are by turns gentler and
        smaller, by the drop predicted of them; where costs are limited, smaller and smaller; else
        gentler and gentler.

    Raises:
        GoalError: no plan meets the goal.
    """
    asked = _asked(options, goal, settings)
    first = _chosen_first(asked, measured_drop, vbmf_ranks)
    count = settings.plans_for(goal)
    if count == 1 or settings.policy == "vbmf":
        return (first,)
    if first.predicted is not None:
        return (first, *_around_drop(first, first.predicted.points, asked, count))
    row = _row(asked)
    spent = row.spent(first.rows)
    low = 1 / _LOSS_RANGE
    if goal.limits_costs():
        least = max(_least(asked, name) / asked.limits[name] for name in asked.limited_costs())
        low = max(1 / _COST_RANGE, least / spent)
    bounds = [spent * ratio for ratio in _falling(low, count)]
    return tuple(replace(first, rows=rows) for rows in distinct(first.rows, bounds, row))


def plan_count(options: OptionTable, goal: Goal, settings: DecomposeSpec) -> int:
    """How many plans `choose` has for a goal: as many as asked for, or as differ enough.

    Measures nothing, so that it can be asked before a model is at hand.

    Raises:
        GoalError: the limits of the goal cannot be met, whatever the drop.
    """
    count = settings.plans_for(goal)
    if count == 1 or settings.policy == "vbmf":
        return 1
    row = _row(_asked(options, goal, settings))
    return max(1, sum(1 for _ in itertools.islice(row.descending(), count)))


@dataclass(frozen=True)
class _Asked:
    """A goal that can be meant, with all that follows from it.

    Attributes:
        options: similar enough for the goal.
    """

    options: OptionTable
    goal: Goal
    policy: str
    recovery: float
    minimized: Minimized
    limits: Limits

    def limited_costs(self) -> list[str]:
        return [name for name in self.limits if name not in _LOSSES]


def _asked(options: OptionTable, goal: Goal, settings: DecomposeSpec) -> _Asked:
    options = _similar_enough(options, goal)
    minimized = settings.minimize or goal.minimized("sensitivity")
    if minimized not in _LOSSES and not goal.limits_losses():
        raise GoalError(
            f"decompose.minimize {minimized} needs a limit on the loss, or every layer would get "
            "its smallest candidate; set max_accuracy_drop, max_predicted_loss or similarity"
        )
    limits = limits_of(goal, options)
    return _Asked(options, goal, settings.policy, settings.expected_recovery, minimized, limits)


def _chosen_first(
    asked: _Asked,
    measured_drop: Callable[[Choices], MeasuredDrop],
    vbmf_ranks: Callable[[str], Ranks],
) -> Chosen:
    options, goal, limits = asked.options, asked.goal, asked.limits
    if asked.policy == "vbmf":
        rows = vbmf(options, vbmf_ranks)
        check_limits(options, limits, rows, asked.policy)
        return Chosen(options, rows, "", limits)
    named = "" if asked.policy == "threshold" else asked.minimized
    if not goal.drop_decides(asked.minimized):
        return Chosen(options, _of_least_loss(asked, limits), named, limits)
    family, loss = _family(options, limits, asked.minimized, asked.policy)
    predicted = smallest_within(
        _allowed(asked), family, lambda rows: measured_drop(options.choices(rows))
    )
    return Chosen(options, predicted.rows, named, limits, loss, predicted)


def _allowed(asked: _Asked) -> float:
    """Accuracy points that may be lost before fine-tuning."""
    return (asked.goal.max_accuracy_drop or 0.0) / (1 - asked.recovery)


def _of_least_loss(asked: _Asked, limits: Limits) -> Indices:
    """The plan where no drop decides. Raises GoalError where the limits cannot be met."""
    if asked.policy == "knapsack":
        return knapsack(asked.options, limits, asked.minimized)
    levels = thresholds_within(asked.options, limits)
    return threshold(asked.options, levels[0] if asked.goal.limits_costs() else levels[-1])


def _around_drop(
    first: Chosen, points: Sequence[TriedPlan], asked: _Asked, count: int
) -> list[Chosen]:
    """Plans whose predicted drops stand in even ratios around the one allowed, gentler first; or
    below it, where the first is the smallest there is.

    Args:
        points: what the curve from loss to drop is fitted to.
    """
    curve, row = fit_curve(points), _row(asked)
    loss = row.spent(first.rows)
    is_smallest = np.array_equal(first.rows, next(row.descending()))
    bounds = []
    for factor in _falling(1 / _LOSS_RANGE, count) if is_smallest else _around(count):
        by_drop = curve.largest_loss(_allowed(asked) * factor)
        # Where the curve does not tell plans apart, as where even the smallest loses nothing, a
        # gentler one has less loss still, and one on the other side no less.
        bounds.append(min(by_drop, loss * factor) if factor < 1 else max(by_drop, loss))
    others = distinct(first.rows, bounds, row)[1:]
    drops = [curve.at(row.spent(rows)) for rows in others]
    return [
        replace(first, rows=rows, predicted=Predicted(rows, tuple(points), drop))
        for rows, drop in zip(others, drops, strict=True)
    ]


def _falling(low: float, count: int) -> list[float]:
    """Of `count` plans, the ratios to the first: even, from below 1 to above `low`."""
    return [low ** (i / count) for i in range(1, count)]


def _around(count: int) -> list[float]:
    """Of `count` plans, the ratios to the first: below and above 1 by turns, ever further away."""
    pairs = count // 2
    steps = [_LOSS_RANGE ** (i / (pairs + 1)) for i in range(1, pairs + 1)]
    return [ratio for step in steps for ratio in (1 / step, step)][: count - 1]


def _row(asked: _Asked) -> PlanSequence:
    """The plans to take several of: by their cost where costs decide, else by their loss."""
    by_loss = asked.goal.drop_decides(asked.minimized) or not asked.goal.limits_costs()
    if by_loss:
        family, _ = _family(asked.options, asked.limits, asked.minimized, asked.policy)
        return PlanSequence(family.within, family.loss)
    costs = asked.limited_costs()

    def within(share: float) -> Indices | None:
        shrunk = {name: asked.limits[name] * min(share, 1.0) for name in costs}
        try:
            return _of_least_loss(asked, {**asked.limits, **shrunk})
        except GoalError:  # the limits can be met, but not with so little of the costs
            if share >= 1.0:
                raise
            return None

    def spent(rows: Indices) -> float:
        return max(asked.options.total(name, rows) / asked.limits[name] for name in costs)

    return PlanSequence(within, spent)


def _least(asked: _Asked, cost: str) -> float:
    return asked.options.total(cost, knapsack(asked.options, {}, cost))


def _family(
    options: OptionTable, limits: Limits, minimized: str, policy: str
) -> tuple[Family, str]:
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
        return None if np.array_equal(rows, options.unchanged()) else rows

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


def _similar_enough(options: OptionTable, goal: Goal) -> OptionTable:
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
