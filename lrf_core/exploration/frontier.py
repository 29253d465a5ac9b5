"""The Pareto front of a design space: the least loss at every budget of one cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrf_core.artifacts import Candidate
from lrf_core.console.progress import track
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import knapsack
from lrf_core.exploration.resources import OptionTable, undominated


@dataclass(frozen=True)
class FrontierPoint:
    """The best plan within one budget.

    Attributes:
        kept: share of the cost that the plan keeps.
        totals: of the whole model, of every quantity that is known.
        replaced: the candidates that layers become.
    """

    kept: float
    totals: dict[str, float]
    replaced: tuple[Candidate, ...]


def frontier(
    options: OptionTable, against: str, loss: str = "sensitivity", points: int = 40
) -> tuple[FrontierPoint, ...]:
    """Plans of least loss at equally spaced budgets, from the smallest plan to the whole model.

    Every point is exact, by the knapsack. Budgets with the same best plan give one point.

    Args:
        against: the cost that budgets are of.
        loss: the quantity that is minimised.
        points: budgets, 2 at least.

    Raises:
        GoalError: the cost is not known of every candidate, or no layer has any.
    """
    amounts = options.amounts_of([loss, against])
    if len(options.candidates) == len(options.layers):
        raise GoalError(
            "no layer has a candidate that is smaller than the layer; there is no frontier to show"
        )
    needed = np.zeros(len(options.owner), dtype=bool)
    needed[undominated(amounts, options.owner)] = True
    needed[options.unchanged()] = True
    before = options.before(against)
    front = options.where(needed)
    smallest = front.total(against, knapsack(front, {}, against))
    found: list[FrontierPoint] = []
    for budget in track(np.linspace(smallest, before, points), "Tracing the frontier"):
        rows = knapsack(front, {against: float(budget)}, loss)
        totals = front.totals(rows)
        replaced = tuple(c.candidate for c in front.choices(rows) if c.candidate)
        if not found or totals[loss] < found[-1].totals[loss]:
            found.append(FrontierPoint(totals[against] / before, totals, replaced))
    return tuple(found)
