"""From the summed loss of plans to the accuracy they lose: a curve calibrated on a few of them.

The summed loss ranks plans well but is no accuracy. A handful of plans along the frontier is
measured, a monotone curve through zero is fitted to them, and the largest loss that the curve
allows decides the plan. That plan is measured too, and corrects the curve if that is off, twice at
most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from lrf_core.artifacts import TriedPlan
from lrf_core.console.progress import work
from lrf_core.errors import GoalError
from lrf_core.exploration.resources import Indices, Vector

# Plans spread over the frontier, then between the last that keeps the drop and the first that
# does not, then chosen by the curve and by the corrected curves.
_SPREAD, _NARROWED, _CHOSEN = 4, 2, 3
TRIED_PLANS = _SPREAD + _NARROWED + _CHOSEN
# Standard errors by which a plan must do better than predicted to correct the curve; one by which
# it does worse is enough.
_NOISE = 2.0
# Keeps a drop of exactly what is allowed from failing by the last bit of a float.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MeasuredDrop:
    """Accuracy points lost on some samples, and the standard error of that."""

    points: float
    standard_error: float


@dataclass(frozen=True)
class DropCurve:
    """Accuracy drop by summed loss: zero at zero, never falling, level behind the last knot.

    Between knots it is straight in `log(1 + loss / first)`, with the loss of the first knot behind
    zero: linear for small losses, where the drop is, and even over the decades beyond.

    Attributes:
        losses: of the knots, ascending from 0, `(knots,)`.
        drops: accuracy points at each, from 0, `(knots,)`.
    """

    losses: Vector
    drops: Vector

    def at(self, loss: float) -> float:
        """The drop to expect, points."""
        return float(np.interp(self._scaled(loss), self._scaled(self.losses), self.drops))

    def largest_loss(self, allowed: float) -> float:
        """The largest loss whose drop is within `allowed` points, as far as the curve goes.

        Args:
            allowed: not negative.
        """
        above = int(np.searchsorted(self.drops, allowed + _ROUNDING, side="right"))
        if above == len(self.drops):
            return float(self.losses[-1])
        low, high = self.drops[above - 1 : above + 1]
        start, end = self._scaled(self.losses[above - 1 : above + 1])
        share = (max(allowed, low) - low) / (high - low)
        loss = self._unit() * math.expm1(start + share * (end - start))
        return float(np.clip(loss, self.losses[above - 1], self.losses[above]))

    def _scaled(self, loss: float | Vector) -> Vector:
        return np.log1p(np.asarray(loss) / self._unit())

    def _unit(self) -> float:
        return float(self.losses[1]) if len(self.losses) > 1 else 1.0


@dataclass(frozen=True)
class Family:
    """The plans to choose from, by the loss they may have.

    Attributes:
        within: the smallest plan whose loss is within a limit; None if none replaces a layer.
        loss: of a plan, summed.
        size: of a plan, what is to be minimised.
        gentlest: the least loss that is worth trying.
    """

    within: Callable[[float], Indices | None]
    loss: Callable[[Indices], float]
    size: Callable[[Indices], float]
    gentlest: float


@dataclass(frozen=True)
class Predicted:
    """A plan that was chosen, and its drop.

    Attributes:
        points: all plans that were measured, in that order; the one for the goal is among them.
        drop: what the curve predicted for it before it was measured; if that was off, or the plan
            is one of those that the curve is fitted to, or is not measured, the curve with all
            measurements.
    """

    rows: Indices
    points: tuple[TriedPlan, ...]
    drop: float


def fit_curve(points: Sequence[TriedPlan]) -> DropCurve:
    """The monotone curve through zero nearest to measured drops, by their standard errors.

    References:
        Barlow, Bartholomew, Bremner, Brunk, "Statistical Inference under Order Restrictions"
        (1972): weighted isotonic regression; within bounds it is that without, clipped.
    """
    positive = [point for point in points if point.loss > 0]
    if not positive:
        return DropCurve(np.zeros(1), np.zeros(1))
    weight = np.array([point.standard_error**-2.0 for point in positive])
    losses, place = np.unique([point.loss for point in positive], return_inverse=True)
    weights = np.bincount(place, weight)
    means = np.bincount(place, weight * [point.drop for point in positive]) / weights
    fitted = np.maximum(isotonic_regression(means, weights=weights).x, 0.0)
    return DropCurve(np.append(0.0, losses), np.append(0.0, fitted))


def paired_drop(lost: int, won: int, count: int) -> MeasuredDrop:
    """The drop between two models on the same samples, with its standard error.

    The error is that of a mean of `count` paired differences of -1, 0 or 1; where no answer
    changed, as if one had, since nothing is known to better than one sample.

    Args:
        lost, won: samples that only the first, only the second model gets right.
    """
    changed = max(lost + won - (lost - won) ** 2 / count, 1.0)
    return MeasuredDrop(100.0 * (lost - won) / count, 100.0 * math.sqrt(changed) / count)


def smallest_within(
    allowed: float, family: Family, measure: Callable[[Indices], MeasuredDrop]
) -> Predicted:
    """The smallest plan that is predicted to lose at most `allowed` points, and was measured to
    lose no more than that and one standard error.

    Measures at most `TRIED_PLANS` plans, and one only where the smallest of all is good enough.

    Raises:
        GoalError: no plan that was tried keeps within `allowed`.
    """
    with work("Trying plans", TRIED_PLANS) as advance:

        def measured(rows: Indices) -> MeasuredDrop:
            drop = measure(rows)
            advance(1)
            return drop

        tries = _Tries(allowed, family, measured)
        found = _search(tries)
        advance(TRIED_PLANS - len(tries.tried))
    if found is None:
        raise GoalError(_none_within(tries))
    rows, predicted = found
    return Predicted(rows, tries.points(), predicted)


@dataclass(frozen=True)
class _Tried:
    rows: Indices
    point: TriedPlan


class _Tries:
    """The plans measured so far, each once, and what they say about a loss."""

    def __init__(
        self, allowed: float, family: Family, measure: Callable[[Indices], MeasuredDrop]
    ) -> None:
        self.allowed = allowed
        self.family = family
        self.tried: list[_Tried] = []
        self._measure = measure

    def within(self, limit: float) -> _Tried | None:
        """Measure the smallest plan within a loss, unless that was done."""
        rows = self.family.within(limit)
        if rows is None:
            return None
        for known in self.tried:
            if np.array_equal(known.rows, rows):
                return known
        drop = self._measure(rows)
        point = TriedPlan(
            loss=self.family.loss(rows), drop=drop.points, standard_error=drop.standard_error
        )
        self.tried.append(_Tried(rows, point))
        return self.tried[-1]

    def points(self) -> tuple[TriedPlan, ...]:
        return tuple(tried.point for tried in self.tried)

    def curve(self) -> DropCurve:
        return fit_curve(self.points())

    def keeps(self, tried: _Tried, noise: float = 0.0) -> bool:
        """Whether a plan lost no more than is allowed, and some noise, when it was measured."""
        return tried.point.drop <= self.allowed + noise + _ROUNDING


def _search(tries: _Tries) -> tuple[Indices, float] | None:
    """The plan to take and the drop predicted of it."""
    smallest = tries.within(math.inf)
    if smallest is None:
        return None
    if not tries.keeps(smallest):
        for limit in np.geomspace(smallest.point.loss, tries.family.gentlest, _SPREAD)[1:]:
            tries.within(float(limit))
        for _ in range(_NARROWED):
            tries.within(_between(tries))
        for left in reversed(range(_CHOSEN)):
            curve = tries.curve()
            chosen = tries.within(curve.largest_loss(tries.allowed))
            if chosen is None:
                break
            predicted, noise = curve.at(chosen.point.loss), chosen.point.standard_error
            much_better = chosen.point.drop < predicted - _NOISE * noise
            if tries.keeps(chosen, noise) and not (much_better and left):
                is_off = abs(chosen.point.drop - predicted) > _NOISE * noise
                corrected = tries.curve().at(chosen.point.loss)
                return chosen.rows, corrected if is_off else predicted
    # The smallest of all, or what the curve chose lost too much: the smallest measured well.
    kept = [tried for tried in tries.tried if tries.keeps(tried)]
    if not kept:
        return None
    best = min(kept, key=lambda tried: tries.family.size(tried.rows))
    return best.rows, tries.curve().at(best.point.loss)


def _between(tries: _Tries) -> float:
    """Amid the last loss that the curve allows and the first that it does not, geometrically."""
    curve = tries.curve()
    within = [k for k in curve.losses if k > 0 and curve.at(k) <= tries.allowed + _ROUNDING]
    beyond = [k for k in curve.losses if curve.at(k) > tries.allowed + _ROUNDING]
    if not beyond:
        return float(within[-1])
    # Below the gentlest there is no bound: a tenth of it is tried.
    return math.sqrt(beyond[0] * (within[-1] if within else beyond[0] / 100))


def _none_within(tries: _Tries) -> str:
    if not tries.tried:
        return "no plan within the other limits of the goal replaces a layer; relax one of them"
    gentlest = min(tried.point.drop for tried in tries.tried)
    return (
        f"no plan keeps the accuracy drop before fine-tuning within {tries.allowed:.2f} points (of "
        f"{len(tries.tried)} tried, the gentlest loses {gentlest:.2f}); allow a larger "
        "max_accuracy_drop"
    )
