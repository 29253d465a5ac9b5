"""Several plans that differ, in a row from the loosest bound on one quantity to the tightest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lrf_core.exploration.resources import Indices

# Share by which the plans of a row differ at least in what is bounded: nearer ones are not worth
# fine-tuning both.
APART = 0.05


@dataclass(frozen=True)
class PlanSequence:
    """The best plan within any bound on one quantity.

    Attributes:
        within: the best plan that spends at most a bound; None if there is none.
        spent: what a plan spends of it, not negative.
    """

    within: Callable[[float], Indices | None]
    spent: Callable[[Indices], float]

    def descending(self, bound: float = math.inf) -> Iterator[Indices]:
        """Plans from a bound on, each spending less than the one before by `APART` or more."""
        while (rows := self.within(bound)) is not None:
            yield rows
            spent = self.spent(rows)
            if spent <= 0:
                return
            bound = spent * (1 - APART)


def distinct(first: Indices, bounds: Iterable[float], row: PlanSequence) -> list[Indices]:
    """A first plan, and for each bound the best plan within it that is not there yet.

    Where that is taken, the next in the row is; past its end, the next from its start. No plan is
    there twice, and there are fewer than asked for only where the row has no others.

    Args:
        first: rows of the options, one per layer, as all plans here.
    """
    found = [first]
    for bound in bounds:
        rows = _untaken(row.descending(bound), found)
        if rows is None:
            rows = _untaken(row.descending(), found)
        if rows is None:
            break
        found.append(rows)
    return found


def _untaken(plans: Iterable[Indices], taken: list[Indices]) -> Indices | None:
    return next(
        (rows for rows in plans if not any(np.array_equal(rows, other) for other in taken)), None
    )
