"""Several plans for one goal: all different, around a predicted drop or below a limit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.artifacts import Candidate, Cost
from lrf_core.exploration.choose import Choices, Chosen, choose, plan_count
from lrf_core.exploration.predict import MeasuredDrop
from lrf_core.exploration.resources import Indices, Layer, OptionTable, options_of
from lrf_core.exploration.spread import APART, PlanSequence, distinct
from lrf_core.exploration.vbmf import Ranks
from lrf_core.spec import DecomposeSpec, Goal

LAYER = Cost(params=1000, macs=50_000)


def candidate(layer: str, params: int, loss: float, ranks: Ranks = (1,)) -> Candidate:
    return Candidate(
        layer=layer,
        method="svd",
        ranks=ranks,
        cost=Cost(params=params, macs=50 * params),
        error=loss,
        similarity=math.exp(-loss),
        sensitivity=loss,
    )


def frontier(layers: int = 4, candidates: int = 30) -> OptionTable:
    """Layers whose candidates lose ever more the smaller they are: from 0.001 to 10 in all."""
    names = [f"layer{i}" for i in range(layers)]
    losses = np.geomspace(1e-3, 10.0, candidates) / layers
    found = [
        candidate(name, 900 - 28 * rank, float(loss) * (1 + i / 10), (rank,))
        for i, name in enumerate(names)
        for rank, loss in enumerate(losses, start=1)
    ]
    total = Cost(params=layers * LAYER.params, macs=layers * LAYER.macs)
    return options_of(found, [Layer(name, LAYER) for name in names], total)


def two_points(choices: Choices) -> MeasuredDrop:
    """Two points a unit of loss."""
    loss = sum(choice.candidate.error for choice in choices if choice.candidate)
    return MeasuredDrop(2.0 * loss, 0.05)


def no_ranks(path: str) -> Ranks:
    raise AssertionError(f"nothing asks for the ranks of {path}")


def chosen(options: OptionTable, goal: Goal, **wanted: object) -> tuple[Chosen, ...]:
    asked = DecomposeSpec(minimize="error", **wanted)
    return choose(options, goal, asked, two_points, no_ranks)


def total(plan: Chosen, name: str) -> float:
    return plan.options.total(name, plan.rows)


def assert_all_differ(plans: tuple[Chosen, ...]) -> None:
    assert not any(np.array_equal(a.rows, b.rows) for a, b in itertools.combinations(plans, 2))


def test_the_first_is_the_plan_that_there_is_alone() -> None:
    for goal in (Goal(max_accuracy_drop=1.0), Goal(params_reduction=0.4)):
        (alone,) = chosen(frontier(), goal, plans=1)
        first, *others = chosen(frontier(), goal, plans=4)
        assert first.choices == alone.choices
        assert len(others) == 3


def test_three_plans_are_predicted_to_lose_what_is_allowed_half_and_twice_of_it() -> None:
    plans = chosen(frontier(), Goal(max_accuracy_drop=1.0))
    drops = [plan.predicted.drop for plan in plans if plan.predicted]
    # A quarter of what is lost before fine-tuning is expected to stay.
    assert drops == pytest.approx([4.0, 2.0, 8.0], rel=0.15)
    exactly, gentler, smaller = (total(plan, "params") for plan in plans)
    assert smaller < exactly < gentler
    assert_all_differ(plans)


@pytest.mark.parametrize("count", [2, 5, 16])
def test_any_number_of_plans_share_out_a_quarter_to_four_times_of_the_drop(count: int) -> None:
    plans = chosen(frontier(), Goal(max_accuracy_drop=1.0), plans=count)
    assert len(plans) == count
    assert_all_differ(plans)
    drops = [plan.predicted.drop for plan in plans if plan.predicted]
    assert all(0.8 < drop < 17 for drop in drops)
    gentler, smaller = drops[1::2], drops[2::2]
    assert gentler == sorted(gentler, reverse=True)
    assert smaller == sorted(smaller)
    assert all(drop < drops[0] for drop in gentler)
    assert all(drop > drops[0] for drop in smaller)


def test_below_a_limit_on_costs_plans_are_smaller_and_smaller() -> None:
    options = frontier()
    goal = Goal(params_reduction=0.4, max_accuracy_drop=1.0)
    plans = chosen(options, goal, plans=3)
    sizes = [total(plan, "params") for plan in plans]
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[0] <= 0.6 * options.before("params")
    shares = [size / sizes[0] for size in sizes]
    assert shares == pytest.approx([1.0, 2 ** (-1 / 3), 2 ** (-2 / 3)], rel=0.05)
    # Each is the best of its size.
    for plan in plans[1:]:
        (best,) = chosen(options, Goal(max_params=int(total(plan, "params"))), plans=1)
        assert total(plan, "error") == pytest.approx(total(best, "error"))


def test_plans_stay_where_the_smallest_still_is_though_the_limit_is_near_it() -> None:
    options = frontier()
    smallest = 4 * (900 - 28 * 30)
    plans = chosen(options, Goal(max_params=int(1.3 * smallest)), plans=3)
    assert len(plans) == 3
    assert_all_differ(plans)
    assert all(smallest <= total(plan, "params") <= 1.3 * smallest for plan in plans)


def test_within_a_limit_on_the_loss_plans_are_gentler_and_gentler() -> None:
    asked = DecomposeSpec(plans=3)
    plans = choose(frontier(), Goal(max_predicted_loss=2.0), asked, two_points, no_ranks)
    losses = [total(plan, "sensitivity") for plan in plans]
    assert losses == sorted(set(losses), reverse=True)
    assert losses[0] <= 2.0
    assert losses[-1] >= 2.0 / 8


def test_there_are_no_more_plans_than_differ() -> None:
    """One layer that can become one of two."""
    found = [candidate("only", 500, 0.1), candidate("only", 100, 1.0, (2,))]
    options = options_of(found, [Layer("only", LAYER)], LAYER)
    for goal in (Goal(max_accuracy_drop=1.0), Goal(params_reduction=0.3)):
        plans = chosen(options, goal, plans=5)
        assert len(plans) == plan_count(options, goal, DecomposeSpec(minimize="error", plans=5))
        assert sorted(total(plan, "params") for plan in plans) == [100, 500]


def test_where_even_the_smallest_loses_nothing_the_others_are_gentler() -> None:
    asked = DecomposeSpec(minimize="error", plans=3)
    options, goal = frontier(), Goal(max_accuracy_drop=1.0)
    plans = choose(options, goal, asked, lambda choices: MeasuredDrop(0.0, 0.05), no_ranks)
    assert len(plans) == 3
    assert_all_differ(plans)
    first, *others = (total(plan, "error") for plan in plans)
    assert [loss / first for loss in others] == pytest.approx(
        [4 ** (-1 / 3), 4 ** (-2 / 3)], rel=0.1
    )


def test_variational_bayes_makes_one_plan() -> None:
    asked, goal = DecomposeSpec(policy="vbmf", plans=3), Goal(max_accuracy_drop=1.0)
    plans = choose(frontier(), goal, asked, two_points, lambda path: (3,))
    assert len(plans) == plan_count(frontier(), goal, asked) == 1


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 99), st.floats(0, 5)), min_size=1, max_size=12
    ),
    st.integers(1, 8),
    st.sampled_from([Goal(max_accuracy_drop=2.0), Goal(max_params=300), Goal(similarity=0.0)]),
    st.sampled_from(["knapsack", "threshold"]),
)
def test_every_plan_that_was_counted_is_there_once(
    found: list[tuple[int, int, float]], count: int, goal: Goal, policy: str
) -> None:
    layers = [Layer(name, Cost(params=100, macs=5000)) for name in "abc"]
    candidates = [
        candidate("abc"[layer], params, loss, (rank,))
        for rank, (layer, params, loss) in enumerate(found)
    ]
    options = options_of(candidates, layers, Cost(params=300, macs=15_000))
    asked = DecomposeSpec(policy=policy, plans=count)
    counted = plan_count(options, goal, asked)
    plans = choose(options, goal, asked, lambda choices: MeasuredDrop(0.5, 0.1), no_ranks)
    assert counted <= len(plans) <= count
    assert_all_differ(plans)


@settings(max_examples=100)
@given(
    st.sets(st.integers(1, 10_000), min_size=1, max_size=40),
    st.lists(st.floats(0, 12_000), max_size=6),
)
def test_a_plan_is_never_taken_twice(amounts: set[int], bounds: list[float]) -> None:
    there = np.array(sorted(amounts))

    def within(bound: float) -> Indices | None:
        fitting = np.flatnonzero(there <= bound)
        return fitting[-1:] if len(fitting) else None

    row = PlanSequence(within, lambda rows: float(there[rows[0]]))
    steps = [float(there[rows[0]]) for rows in row.descending()]
    assert steps[0] == there[-1]
    assert all(low <= (1 - APART) * high for high, low in itertools.pairwise(steps))
    found = [int(rows[0]) for rows in distinct(np.array([0]), bounds, row)]
    assert len(found) == len(set(found))
    assert found[0] == 0
    # Fewer than asked for, only where the row has no others.
    assert len(found) == 1 + len(bounds) or {len(there) - 1} <= set(found)
