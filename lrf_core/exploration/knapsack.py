"""The multiple-choice knapsack, exactly: one option per layer, least cost, within every limit.

HiGHS solves it as a mixed-integer program over a core of the options only (Balas and Zemel 1980;
Pisinger 1995). With multipliers `u >= 0` of the limits, `v_j = c_j + u a_j` and the least `v` of
each layer give the Lagrangian bound `sum_l min v - u b` on every plan, and a plan with option `j`
costs at least the bound plus `v_j - min v`, the regret of `j`. So once a plan is found within the
core, the options whose regret exceeds the distance of that plan from the bound cannot be in a
better one. The core grows until it holds all others; that is a proof, whatever the multipliers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import scipy.sparse
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, linprog, milp

from lrf_core.console.quiet import native_output_logged
from lrf_core.exploration.resources import Indices, Vector, undominated

_logger = logging.getLogger("lrf")

# Totals may exceed a limit by this share of it: what is lost in adding up doubles.
ROUNDING = 1e-12
# OptionTable per layer in the first core.
_FIRST_CORE = 2.0
# After which the best plan found is taken, with a warning; never seen to be needed.
_TIME_LIMIT_S = 120.0


def least(cost: Vector, amounts: Vector, limits: Vector, owner: Indices) -> Indices | None:
    """The rows, one per layer, of least summed cost whose totals are within the limits.

    Args:
        cost: of each row, `(rows,)`.
        amounts: what each row spends, `(quantities, rows)`.
        limits: on the totals, `(quantities,)`.
        owner: the layer of each row, ascending from 0, each layer at least once.

    Returns:
        One row per layer, in order; None if no plan is within the limits.
    """
    rows = undominated(np.vstack([cost[None], amounts]), owner)
    found = _least_undominated(cost[rows], amounts[:, rows], limits, owner[rows])
    return None if found is None else rows[found]


def nearest(amounts: Vector, limits: Vector, scales: Vector, owner: Indices) -> Indices:
    """The rows, one per layer, whose largest excess over a limit, in units of `scales`, is least.

    Args:
        amounts, limits, owner: as of `least`.
        scales: positive, `(quantities,)`.
    """
    rows = undominated(amounts, owner)
    scaled = amounts[:, rows] / scales[:, None]
    count = len(rows)
    excess = np.full((len(limits), 1), -1.0)
    found = _solved(
        np.append(np.zeros(count), 1.0),
        [
            LinearConstraint(np.hstack([scaled, excess]), -np.inf, limits / scales),
            LinearConstraint(_one_per_layer(owner[rows], 1), 1, 1),
        ],
        integrality=np.append(np.ones(count), 0),
        bounds=Bounds(0, np.append(np.ones(count), np.inf)),
    )
    return rows[np.flatnonzero(found.x[:-1] > 0.5)]


def within(totals: Vector, limits: Vector) -> bool:
    """Whether totals are within limits, except rounding."""
    return bool((totals <= limits + ROUNDING * np.maximum(np.abs(limits), 1e-300)).all())


def _least_undominated(
    cost: Vector, amounts: Vector, limits: Vector, owner: Indices
) -> Indices | None:
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    excess = cost - np.minimum.reduceat(cost, first)[owner]
    cheapest = _first_of_layers(np.flatnonzero(excess == 0), owner)
    if within(amounts[:, cheapest].sum(axis=1), limits):
        return cheapest
    # Units in which the solver's tolerances mean the same for any model.
    units = np.maximum(np.abs(amounts).max(axis=1), 1e-300)
    amounts, limits = amounts / units[:, None], limits / units
    multipliers = _multipliers(excess, amounts, limits, owner)
    if multipliers is None:
        return None
    priced = excess + multipliers @ amounts
    lowest = np.minimum.reduceat(priced, first)
    regret = priced - lowest[owner]
    bound = float(lowest.sum() - multipliers @ limits)
    size = int(_FIRST_CORE * len(first))
    while True:
        reach = _nth_least(regret, size)
        core = np.flatnonzero(regret <= reach)
        unit = max(reach, 1e-9 * float(excess.max()))
        found = _best_of_core(excess[core] / unit, amounts[:, core], limits, owner[core])
        if len(core) == len(cost):
            return None if found is None else core[found]
        if found is not None:
            distance = float(excess[core[found]].sum()) - bound
            needed = int((regret <= distance).sum())
            if needed <= len(core):
                return core[found]
            size = min(needed, 4 * len(core))
        else:
            size = 2 * len(core)


def _nth_least(values: Vector, count: int) -> float:
    place = min(count, len(values)) - 1
    return float(np.partition(values, place)[place])


def _first_of_layers(rows: Indices, owner: Indices) -> Indices:
    return rows[np.flatnonzero(np.diff(owner[rows], prepend=-1))]


def _multipliers(cost: Vector, amounts: Vector, limits: Vector, owner: Indices) -> Vector | None:
    """The price of each limit, from the linear relaxation; None if that has no solution."""
    unit = max(float(cost.max()), 1e-300)
    relaxed = linprog(
        cost / unit,
        A_ub=amounts,
        b_ub=limits,
        A_eq=_one_per_layer(owner),
        b_eq=np.ones(owner[-1] + 1),
        bounds=(0, 1),
        method="highs",
    )
    if relaxed.x is None:
        return None
    return np.maximum(-np.asarray(relaxed.ineqlin.marginals) * unit, 0.0)


def _best_of_core(cost: Vector, amounts: Vector, limits: Vector, owner: Indices) -> Indices | None:
    """The best rows; a plan that is within the limits by the solver's tolerance only is cut off."""
    constraints = [
        LinearConstraint(_one_per_layer(owner), 1, 1),
        LinearConstraint(amounts, -np.inf, limits),
    ]
    layers = owner[-1] + 1
    while True:
        found = _solved(
            cost, constraints, integrality=np.ones(len(cost)), bounds=Bounds(0, 1), presolve=False
        )
        if found.x is None:
            return None
        rows = np.flatnonzero(found.x > 0.5)
        if within(amounts[:, rows].sum(axis=1), limits):
            return rows
        this_plan = np.zeros(len(cost))
        this_plan[rows] = 1
        constraints.append(LinearConstraint(this_plan[None], -np.inf, layers - 1))


def _solved(
    cost: Vector,
    constraints: Sequence[LinearConstraint],
    *,
    integrality: Vector,
    bounds: Bounds,
    presolve: bool = True,
) -> OptimizeResult:
    with native_output_logged(1):
        found = milp(
            cost,
            constraints=constraints,
            integrality=integrality,
            bounds=bounds,
            options={"mip_rel_gap": 0.0, "time_limit": _TIME_LIMIT_S, "presolve": presolve},
        )
    if found.status == 1 and found.x is not None:
        _logger.warning(
            "the plan is the best found in %.0f s, within %.2g%% of the best there may be",
            _TIME_LIMIT_S,
            100 * found.mip_gap,
        )
    return found


def _one_per_layer(owner: Indices, more: int = 0) -> scipy.sparse.csr_matrix:
    """`(layers, rows + more)`: 1 if the row is of the layer."""
    count = len(owner)
    shape = (int(owner[-1]) + 1, count + more)
    return scipy.sparse.csr_matrix((np.ones(count), (owner, np.arange(count))), shape)
