"""The curve from summed loss to accuracy drop, and the plan that it leads to."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.artifacts import TriedPlan
from lrf_core.errors import GoalError
from lrf_core.exploration.predict import (
    TRIED_PLANS,
    Family,
    MeasuredDrop,
    fit_curve,
    paired_drop,
    smallest_within,
)
from lrf_core.exploration.resources import Indices

points = st.lists(
    st.builds(
        TriedPlan,
        loss=st.one_of(st.just(0.0), st.floats(1e-6, 1e4)),
        drop=st.floats(-5, 90),
        standard_error=st.floats(0.05, 2),
    ),
    max_size=8,
)


def tried(loss: float, drop: float, error: float = 0.3) -> TriedPlan:
    return TriedPlan(loss=loss, drop=drop, standard_error=error)


@settings(max_examples=200)
@given(points, st.lists(st.floats(0, 1e5), min_size=2, max_size=20))
def test_the_curve_starts_at_zero_and_never_falls(
    found: list[TriedPlan], losses: list[float]
) -> None:
    curve = fit_curve(found)
    assert curve.at(0.0) == 0.0
    drops = [curve.at(loss) for loss in sorted(losses)]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(drops))


@settings(max_examples=200)
@given(points, st.floats(0, 100))
def test_the_largest_loss_is_within_and_more_is_not(found: list[TriedPlan], allowed: float) -> None:
    curve = fit_curve(found)
    loss = curve.largest_loss(allowed)
    assert curve.at(loss) <= allowed + 1e-6
    if loss < curve.losses[-1]:
        assert curve.at(loss) == pytest.approx(allowed, abs=1e-6) or loss in curve.losses
        more = min(1.5 * loss + 1e-9, curve.losses[-1])
        assert curve.at(more) >= allowed - 1e-6
        assert curve.at(curve.losses[-1]) > allowed


def test_points_in_order_are_met_and_inverted() -> None:
    curve = fit_curve([tried(3.0, 20.0), tried(0.1, 0.5), tried(1.0, 6.0)])
    assert [curve.at(loss) for loss in (0.1, 1.0, 3.0, 9.0)] == pytest.approx([0.5, 6, 20, 20])
    for allowed in (0.2, 0.5, 3.0, 12.0):
        assert curve.at(curve.largest_loss(allowed)) == pytest.approx(allowed)
    assert curve.largest_loss(0.0) == 0.0
    assert curve.largest_loss(20.0) == 3.0


def test_points_out_of_order_are_averaged_by_their_noise() -> None:
    curve = fit_curve([tried(1.0, 2.0, 0.1), tried(2.0, 1.0, 0.2), tried(4.0, 8.0)])
    assert curve.at(1.0) == curve.at(2.0) == pytest.approx((2.0 * 4 + 1.0) / 5)
    # What is level is allowed to its end.
    assert curve.largest_loss(curve.at(1.0)) == pytest.approx(2.0)


def test_an_accuracy_that_rose_predicts_no_drop() -> None:
    curve = fit_curve([tried(0.5, -1.0), tried(1.0, -0.2), tried(5.0, 3.0)])
    assert curve.at(0.5) == curve.at(1.0) == 0.0
    assert curve.largest_loss(0.0) == 1.0


@settings(max_examples=100)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(800, 3000))
def test_the_noise_of_a_drop_is_that_of_paired_differences(lost: int, won: int, count: int) -> None:
    drop = paired_drop(lost, won, count)
    differences = np.zeros(count)
    differences[:lost], differences[lost : lost + won] = 1, -1
    assert drop.points == pytest.approx(100 * differences.mean())
    least = 100 / count
    assert drop.standard_error == pytest.approx(
        max(least, 100 * differences.std() / math.sqrt(count))
    )


# Plans `0..PLANS-1`, from one that changes almost nothing to the smallest.
PLANS = 400
LOSSES = np.geomspace(1e-5, 50.0, PLANS)


def family() -> Family:
    def within(limit: float) -> Indices | None:
        fitting = np.flatnonzero(limit * (1 + 1e-12) >= LOSSES)
        return fitting[-1:] if len(fitting) else None

    return Family(
        within=within,
        loss=lambda rows: float(LOSSES[rows[0]]),
        size=lambda rows: float(PLANS - rows[0]),
        gentlest=float(LOSSES[0]),
    )


def saturating(rows: Indices) -> float:
    return 75.0 * (1 - math.exp(-float(LOSSES[rows[0]]) / 0.8))


@settings(max_examples=150)
@given(st.floats(0.05, 70.0), st.integers(0, 10**6))
def test_the_plan_keeps_the_drop_and_is_near_the_smallest_that_does(
    allowed: float, seed: int
) -> None:
    noise = np.random.default_rng(seed).normal(0.0, 0.2, PLANS)
    measured: dict[int, float] = {}

    def measure(rows: Indices) -> MeasuredDrop:
        assert int(rows[0]) not in measured, "a plan was measured twice"
        measured[int(rows[0])] = saturating(rows) + float(noise[rows[0]])
        return MeasuredDrop(measured[int(rows[0])], 0.2)

    try:
        found = smallest_within(allowed, family(), measure)
    except GoalError:
        assert min(measured.values()) > allowed
        return
    chosen = int(found.rows[0])
    assert measured[chosen] <= allowed + 0.2 + 1e-6
    assert [point.drop for point in found.points] == list(measured.values())
    assert len(measured) <= TRIED_PLANS
    assert saturating(found.rows) <= allowed + 5 * 0.2
    # Far fewer plans are tried than there are: a plan of half the loss is never the best there was.
    if 2.0 < allowed < 50.0:
        best = max(k for k in range(PLANS) if saturating(np.array([k])) <= allowed)
        assert LOSSES[chosen] >= LOSSES[best] / 2


def test_the_smallest_plan_is_taken_at_once_where_it_is_good_enough() -> None:
    found = smallest_within(1.0, family(), lambda rows: MeasuredDrop(0.5, 0.1))
    assert int(found.rows[0]) == PLANS - 1
    assert (len(found.points), found.drop) == (1, 0.5)


def test_a_prediction_that_was_off_is_corrected() -> None:
    """The first plan that the curve chooses is worse than all around it."""
    measured: list[float] = []

    def measure(rows: Indices) -> MeasuredDrop:
        is_first_choice = len(measured) == TRIED_PLANS - 3
        measured.append(saturating(rows) + (10.0 if is_first_choice else 0.0))
        return MeasuredDrop(measured[-1], 0.1)

    found = smallest_within(5.0, family(), measure)
    first, *_, last = found.points[TRIED_PLANS - 3 :]
    assert first.drop > 5.0 >= last.drop
    assert 0.5 * first.loss < last.loss < first.loss
    assert LOSSES[found.rows[0]] == last.loss


@settings(max_examples=150)
@given(st.floats(0.5, 20.0), st.floats(0.1, 20.0), st.floats(1.0, 20.0))
def test_the_prediction_agrees_with_the_measurement_also_at_a_cliff(
    allowed: float, cliff: float, steepness: float
) -> None:
    """Accuracy may fall by tens of points between two plans, which no curve sees beforehand."""

    def measure(rows: Indices) -> MeasuredDrop:
        return MeasuredDrop(75.0 / (1 + (cliff / LOSSES[rows[0]]) ** steepness), 0.1)

    found = smallest_within(allowed, family(), measure)
    drop = measure(found.rows).points
    assert drop <= allowed + 0.1 + 1e-6
    assert found.drop == pytest.approx(drop, abs=0.2 + 1e-6)


def test_nothing_keeps_within_the_drop() -> None:
    with pytest.raises(GoalError, match=r"within 1.00 points \(of \d tried, .* loses 30.00\)"):
        smallest_within(1.0, family(), lambda rows: MeasuredDrop(30.0, 0.2))
    stuck = Family(lambda limit: None, lambda rows: 0.0, lambda rows: 0.0, 1.0)
    with pytest.raises(GoalError, match="replaces a layer"):
        smallest_within(1.0, stuck, lambda rows: MeasuredDrop(0.0, 0.2))
