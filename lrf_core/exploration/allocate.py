"""Choose one option per layer within limits: exactly, or by the paper's threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lrf_core.artifacts import Choice, Cost
from lrf_core.errors import GoalError
from lrf_core.exploration.knapsack import least, nearest, within
from lrf_core.exploration.resources import QUANTITIES, Indices, OptionTable, Quantity, Vector
from lrf_core.spec import Goal

# What the whole model may spend at most, by the name of the quantity.
Limits = Mapping[str, float]


def limits_of(goal: Goal, options: OptionTable) -> dict[str, float]:
    """The goal as limits on totals; a ceiling and a share of one quantity are both kept.

    Raises:
        GoalError: a quantity is limited that is not known of every candidate.
    """
    limits: dict[str, float] = {}
    for name, quantity in QUANTITIES.items():
        ceiling, reduction = _asked(goal, quantity)
        if ceiling is None and reduction is None:
            continue
        options.amounts_of([name])
        share = math.inf if reduction is None else options.before(name) * (1 - reduction)
        limits[name] = min(math.inf if ceiling is None else float(ceiling), share)
    return limits


def knapsack(options: OptionTable, limits: Limits, minimize: str) -> Indices:
    """The rows, one per layer, with the least total of a quantity within all limits, exactly.

    Raises:
        GoalError: no plan is within the limits; the message gives the nearest that can be reached.
    """
    cost = options.amounts_of([minimize])[0]
    amounts, own = _of_layers(options, limits)
    rows = least(cost, amounts, own, options.owner)
    if rows is None:
        raise GoalError(_out_of_reach(options, limits))
    return rows


def threshold(options: OptionTable, similarity: float) -> Indices:
    """The policy of arXiv 2510.00062: per layer, the candidate with the fewest parameters whose
    similarity reaches the threshold; a layer if none does stays as it is."""
    return _smallest(options, _similarities(options) >= similarity)


def thresholds_within(options: OptionTable, limits: Limits) -> list[float]:
    """The similarity thresholds whose plans are within the limits, from the highest.

    As the threshold falls, a layer changes only where a candidate has fewer parameters than all
    more similar ones; between these levels nothing happens. Infinity stands for no change at all.

    Raises:
        GoalError: no threshold meets the limits.
    """
    amounts, own = _of_layers(options, limits)
    rows, levels, steps = _falling(options, amounts)
    totals = amounts[:, options.unchanged()].sum(axis=1)[:, None] + steps.cumsum(axis=1)
    # Where several layers change at one level, only the last of these steps is a plan.
    is_plan = np.append(np.diff(levels) != 0, True)
    fitting = [
        float(level)
        for level, total in zip(levels[is_plan], totals[:, is_plan].T, strict=True)
        if within(total, own)
    ]
    if not fitting:
        raise GoalError(
            f"no similarity threshold meets the goal ({_words(options, limits, rows)} at the "
            "lowest); lower the goal or use the knapsack policy"
        )
    return fitting


def check_limits(options: OptionTable, limits: Limits, rows: Indices, policy: str) -> None:
    """Raises GoalError where a plan that was made whatever the limits exceeds one."""
    exceeded = {
        name: limit
        for name, limit in limits.items()
        if not within(np.array([options.total(name, rows)]), np.array([limit]))
    }
    if exceeded:
        raise GoalError(
            f"policy {policy} chooses ranks whatever the goal, and its plan has "
            f"{_words(options, exceeded, rows)}; lower the goal or use the knapsack policy"
        )


def total_after(choices: Iterable[Choice], total: Cost) -> Cost:
    """Cost of the whole model with these choices."""
    params, macs = total.params, total.macs
    for choice in choices:
        after = choice.after()
        params += after.params - choice.before.params
        macs += after.macs - choice.before.macs
    return Cost(params=params, macs=macs)


def predicted_loss(choices: Iterable[Choice]) -> float:
    """Summed sensitivity of the choices."""
    return sum(choice.candidate.sensitivity for choice in choices if choice.candidate)


def _asked(goal: Goal, quantity: Quantity) -> tuple[Any, Any]:
    ceiling = getattr(goal, quantity.ceiling) if quantity.ceiling else None
    return ceiling, getattr(goal, quantity.reduction) if quantity.reduction else None


def _of_layers(options: OptionTable, limits: Limits) -> tuple[Vector, Vector]:
    """What each row spends of what is limited, and how much of it the layers may spend in all."""
    rest = np.array([options.fixed_cost[name] for name in limits])
    return options.amounts_of(tuple(limits)), np.array(list(limits.values())) - rest


def _similarities(options: OptionTable) -> Vector:
    """Of each row; infinite where the layer stays."""
    return np.array([c.similarity if c else math.inf for c in options.candidates])


def _smallest(options: OptionTable, allowed: np.ndarray) -> Indices:
    """Of each layer the allowed row with the fewest parameters, of equals the most similar.

    A layer stays only where no candidate is allowed.
    """
    similarity, params = _similarities(options), options.amounts["params"]
    is_candidate = np.isfinite(similarity)
    rows = np.flatnonzero(allowed)
    order = np.lexsort((-similarity[rows], params[rows], ~is_candidate[rows], options.owner[rows]))
    ordered = rows[order]
    return ordered[np.flatnonzero(np.diff(options.owner[ordered], prepend=-1))]


def _falling(options: OptionTable, amounts: Vector) -> tuple[Indices, Vector, Vector]:
    """What happens while the threshold falls from infinity to the lowest similarity there is.

    Returns:
        The rows at the lowest threshold; the levels at which a layer changes, falling, the first
        infinite; and how the amounts change at each, `(quantities, levels)`.
    """
    similarity, params = _similarities(options), options.amounts["params"]
    stays = options.unchanged()
    levels, steps = [math.inf], [np.zeros(len(amounts))]
    last = stays.copy()
    for row in np.lexsort((params, -similarity, options.owner)):
        layer = options.owner[row]
        now = last[layer]
        if row == now or (now != stays[layer] and params[row] >= params[now]):
            continue
        levels.append(similarity[row])
        steps.append(amounts[:, row] - amounts[:, now])
        last[layer] = row
    falling = np.argsort(-np.array(levels), kind="stable")
    return last, np.array(levels)[falling], np.array(steps).T[:, falling]


def _out_of_reach(options: OptionTable, limits: Limits) -> str:
    """Which limits cannot be reached alone, and what can be reached of all together."""
    amounts, own = _of_layers(options, limits)
    smallest = np.array([options.total(name, _least_of(options, name)) for name in limits])
    alone = {
        name: (limit, low)
        for (name, limit), low in zip(limits.items(), smallest, strict=True)
        if not within(np.array([low]), np.array([limit]))
    }
    if alone:
        problems = "; ".join(
            f"{_setting(options, name, limit)} cannot be reached: the smallest plan reaches "
            f"{_reached(options, name, low)}"
            for name, (limit, low) in alone.items()
        )
        together = ""
        if len(limits) > 1:
            together = f" (all limits at once: {_nearest_words(options, limits, amounts, own)})"
        return f"{problems}{together}; ask for that or less, allow more layers or more methods"
    asked = " and ".join(_setting(options, name, limit) for name, limit in limits.items())
    return (
        f"no plan meets {asked} at once, though each alone can be met; the nearest has "
        f"{_nearest_words(options, limits, amounts, own)}; ask for that or less"
    )


def _least_of(options: OptionTable, name: str) -> Indices:
    return knapsack(options, {}, name)


def _nearest_words(options: OptionTable, limits: Limits, amounts: Vector, own: Vector) -> str:
    """The plan with the least excess, in shares of what the model or the largest plan spends."""
    largest = np.array([amounts[i].max() for i in range(len(own))]) * len(options.layers)
    before = np.array([options.before(name) for name in limits])
    scales = np.where(before > 0, before, np.maximum(largest, 1e-300))
    return _words(options, limits, nearest(amounts, own, scales, options.owner))


def _words(options: OptionTable, limits: Limits, rows: Indices) -> str:
    return ", ".join(_reached(options, name, options.total(name, rows)) for name in limits)


def _setting(options: OptionTable, name: str, limit: float) -> str:
    """The limit in the words of the goal, as a share removed where that is possible."""
    quantity, before = QUANTITIES[name], options.before(name)
    if quantity.reduction and before > 0 and limit < before:
        return f"{quantity.reduction} {1 - limit / before:.3f}"
    return f"{quantity.ceiling} {limit:.6g}"


def _reached(options: OptionTable, name: str, total: float) -> str:
    """A total in the words of the goal, rounded so that it can be asked for as it stands."""
    quantity, before = QUANTITIES[name], options.before(name)
    ceiling = f"{math.ceil(total)}" if quantity.whole else f"{_rounded_up(total):.6g}"
    if quantity.reduction and before > 0:
        share = math.floor((1 - total / before) * 1000 + 1e-9) / 1000
        return f"{quantity.reduction} {share:.3f} ({quantity.ceiling} {ceiling})"
    return f"{quantity.ceiling} {ceiling}"


def _rounded_up(value: float) -> float:
    """To five digits, so that six print it exactly."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 4)
    return math.ceil(value / step * (1 - 1e-12)) * step
