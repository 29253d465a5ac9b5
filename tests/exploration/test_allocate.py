"""The allocation is exact: the same as trying every plan."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.artifacts import Candidate, Choice, Cost
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import (
    Budget,
    LayerOptions,
    error,
    knapsack,
    options_by_layer,
    predicted_loss,
    sensitivity,
    threshold,
    threshold_for_budget,
    total_after,
)


def candidate(
    layer: str, params: int, macs: int, loss: float, similarity: float = 0.9
) -> Candidate:
    return Candidate(
        layer=layer,
        method="svd",
        ranks=(1,),
        cost=Cost(params=params, macs=macs),
        error=1 - similarity,
        similarity=similarity,
        sensitivity=loss,
    )


BEFORE = Cost(params=100, macs=1000)
TOTAL = Cost(params=450, macs=5000)


@st.composite
def spaces(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for layer in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        for _ in range(draw(st.integers(0, 4))):
            params, macs = draw(st.integers(1, 99)), draw(st.integers(1, 1500))
            loss, similarity = draw(st.integers(0, 50)) / 10, draw(st.integers(0, 10)) / 10
            found.append(candidate(layer, params, macs, loss, similarity))
    return found


def options(found: list[Candidate]) -> list[LayerOptions]:
    return options_by_layer(found, dict.fromkeys("abc", BEFORE))


def every_plan(found: list[Candidate]) -> list[tuple[Choice, ...]]:
    per_layer = [
        [Choice(layer=name, before=BEFORE)]
        + [Choice(layer=name, before=BEFORE, candidate=c) for c in found if c.layer == name]
        for name in "abc"
    ]
    return list(itertools.product(*per_layer))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spaces(), st.floats(0.4, 1.0), st.floats(0.4, 1.0))
def test_knapsack_is_as_good_as_trying_every_plan(
    found: list[Candidate], params: float, macs: float
) -> None:
    budget = Budget(params=params * TOTAL.params, macs=macs * TOTAL.macs)
    fitting = []
    for plan in every_plan(found):
        after = total_after(plan, TOTAL)
        if after.params <= params * TOTAL.params and after.macs <= macs * TOTAL.macs:
            fitting.append(predicted_loss(plan))
    if not fitting:
        with pytest.raises(GoalError):
            knapsack(options(found), TOTAL, budget)
        return
    chosen = knapsack(options(found), TOTAL, budget)
    after = total_after(chosen, TOTAL)
    assert after.params <= budget.params + 1e-6
    assert after.macs <= budget.macs + 1e-6
    assert predicted_loss(chosen) == pytest.approx(min(fitting), abs=1e-3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spaces(), st.floats(0.0, 1.0))
def test_threshold_takes_the_smallest_that_is_similar_enough(
    found: list[Candidate], similarity: float
) -> None:
    for choice in threshold(options(found), similarity):
        near = [c for c in found if c.layer == choice.layer and c.similarity >= similarity]
        if choice.candidate is None:
            continue
        assert choice.candidate in near


def test_threshold_for_a_budget_is_the_highest_that_fits() -> None:
    found = [candidate("a", 100 - 10 * i, 900, i, 1 - i / 10) for i in range(1, 9)]
    chosen = threshold_for_budget(options(found), TOTAL, Budget(params=TOTAL.params - 45))
    assert total_after(chosen, TOTAL).params == TOTAL.params - 50


def test_a_goal_out_of_reach_names_what_is_reachable() -> None:
    found = [candidate("a", 10, 10, 1.0)]
    with pytest.raises(GoalError, match=r"params_reduction 0.500 .* reaches 0.200"):
        knapsack(options(found), TOTAL, Budget(params=TOTAL.params / 2))
    with pytest.raises(GoalError, match=r"smallest plan has 20.0% fewer parameters"):
        threshold_for_budget(options(found), TOTAL, Budget(params=TOTAL.params / 2))


def test_goals_that_exclude_each_other() -> None:
    found = [candidate("a", 10, 1000, 1.0), candidate("a", 99, 10, 1.0)]
    budget = Budget(params=TOTAL.params - 80, macs=TOTAL.macs - 900)
    with pytest.raises(GoalError, match="both the params and the macs goal"):
        knapsack(options(found), TOTAL, budget)


def test_what_is_minimised_can_be_chosen() -> None:
    harmless = candidate("a", 50, 50, loss=0.1, similarity=0.2)
    faithful = candidate("a", 50, 50, loss=0.9, similarity=0.99)
    for loss, best in ((sensitivity, harmless), (error, faithful)):
        opened = options_by_layer([harmless, faithful], {"a": BEFORE}, loss)
        (choice,) = knapsack(opened, TOTAL, Budget(params=TOTAL.params - 50), loss)
        assert choice.candidate == best


def test_beaten_candidates_are_dropped() -> None:
    good, bad = candidate("a", 10, 10, 1.0), candidate("a", 20, 20, 2.0)
    assert options([bad, good])[0].candidates == (good,)
