"""The allocation is exact: the same as trying every plan, whatever is limited or minimised."""

from __future__ import annotations

import itertools
import math
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.artifacts import Candidate, Cost
from lrf_core.errors import GoalError
from lrf_core.exploration.allocate import (
    check_limits,
    knapsack,
    limits_of,
    predicted_loss,
    threshold,
    thresholds_within,
    total_after,
)
from lrf_core.exploration.knapsack import least, within
from lrf_core.exploration.resources import (
    QUANTITIES,
    Indices,
    Layer,
    OptionTable,
    options_of,
    undominated,
)
from lrf_core.spec import Goal


def candidate(
    layer: str,
    params: int,
    macs: int,
    loss: float,
    similarity: float = 0.9,
    latency_ms: float | None = None,
    ranks: tuple[int, ...] = (1,),
) -> Candidate:
    return Candidate(
        layer=layer,
        method="svd",
        ranks=ranks,
        cost=Cost(params=params, macs=macs),
        error=1 - similarity,
        similarity=similarity,
        sensitivity=loss,
        latency_ms=latency_ms,
    )


BEFORE = Cost(params=100, macs=1000)
TOTAL = Cost(params=450, macs=5000)
LAYERS = (
    Layer("a", BEFORE, itemsize=4, latency_ms=2.0),
    Layer("b", BEFORE, itemsize=2, latency_ms=3.0),
    Layer("c", BEFORE, itemsize=4, latency_ms=0.5),
)
LIMITED = ("params", "macs", "bytes", "latency", "sensitivity", "error")


@st.composite
def spaces(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for layer in "abc"[: draw(st.integers(1, 3))]:
        for _ in range(draw(st.integers(0, 4))):
            found.append(
                candidate(
                    layer,
                    draw(st.integers(1, 99)),
                    draw(st.integers(1, 1500)),
                    draw(st.integers(0, 50)) / 10,
                    draw(st.integers(0, 10)) / 10,
                    draw(st.integers(1, 40)) / 8,
                )
            )
    return found


def options(found: list[Candidate]) -> OptionTable:
    return options_of(found, LAYERS, TOTAL, 1500)


def every_plan(opened: OptionTable) -> list[Indices]:
    rows = [np.flatnonzero(opened.owner == layer) for layer in range(len(opened.layers))]
    return [np.array(plan) for plan in itertools.product(*rows)]


@settings(max_examples=150)
@given(
    spaces(),
    st.dictionaries(st.sampled_from(LIMITED), st.floats(0.2, 1.0), max_size=4),
    st.sampled_from(LIMITED),
)
def test_knapsack_is_as_good_as_trying_every_plan(
    found: list[Candidate], shares: dict[str, float], minimize: str
) -> None:
    opened = options(found)
    scale = {name: opened.before(name) or 8.0 for name in LIMITED}
    limits = {name: share * scale[name] for name, share in shares.items()}
    fitting = [
        opened.total(minimize, plan)
        for plan in every_plan(opened)
        if all(opened.total(name, plan) <= limit + 1e-9 for name, limit in limits.items())
    ]
    if not fitting:
        with pytest.raises(GoalError):
            knapsack(opened, limits, minimize)
        return
    chosen = knapsack(opened, limits, minimize)
    assert list(opened.owner[chosen]) == [0, 1, 2]
    assert all(opened.total(name, chosen) <= limit + 1e-9 for name, limit in limits.items())
    assert opened.total(minimize, chosen) == pytest.approx(min(fitting), abs=1e-9)


@settings(max_examples=80)
@given(st.data())
def test_what_is_dominated_is_never_needed(data: st.DataObject) -> None:
    quantities, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(3, 14))
    values = st.lists(st.integers(0, 6), min_size=rows, max_size=rows)
    amounts = np.array([data.draw(values) for _ in range(quantities)], dtype=float)
    owner = np.sort(np.array([0, 1, 2, *data.draw(values)][:rows]) % 3)
    kept = undominated(amounts, owner)
    for row in range(rows):
        beaten_by = [
            other
            for other in kept
            if owner[other] == owner[row] and (amounts[:, other] <= amounts[:, row]).all()
        ]
        assert beaten_by == [row] if row in kept else beaten_by
    limits = np.array([data.draw(st.integers(0, 18)) for _ in range(quantities - 1)], dtype=float)
    every = [
        plan
        for plan in itertools.product(*(np.flatnonzero(owner == layer) for layer in range(3)))
        if (amounts[1:, plan].sum(axis=1) <= limits).all()
    ]
    best = min((amounts[0, plan].sum() for plan in every), default=None)
    survivors = [plan for plan in every if set(plan) <= set(kept)]
    assert min((amounts[0, plan].sum() for plan in survivors), default=None) == best
    chosen = least(amounts[0], amounts[1:], limits, owner)
    assert (None if chosen is None else amounts[0, chosen].sum()) == best


def large(layers: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, parameters and owners of a space whose layers differ by orders of magnitude."""
    draw = np.random.default_rng(seed)
    kept = np.concatenate([np.ones((layers, 1)), draw.uniform(0.02, 0.99, (layers, each))], axis=1)
    size = np.exp(draw.normal(9, 1.5, layers))[:, None]
    loss = np.exp(draw.normal(-6, 3, layers))[:, None] * (1 - kept) ** 2 / kept
    return loss.ravel(), np.floor(size * kept).ravel(), np.repeat(np.arange(layers), each + 1)


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.15])
def test_a_large_space_is_solved_as_by_dynamic_programming(kept: float) -> None:
    loss, params, owner = large(8, 60, seed=3)
    limit = math.floor(params[::61].sum() * kept)
    best = np.zeros(limit + 1)  # least loss by parameters spent at most, layer by layer
    for layer in range(8):
        rows = np.flatnonzero(owner == layer)
        after = np.full(limit + 1, np.inf)
        for row in rows:
            spent = int(params[row])
            if spent <= limit:
                after[spent:] = np.minimum(after[spent:], best[: limit + 1 - spent] + loss[row])
        best = after
    chosen = least(loss, params[None], np.array([float(limit)]), owner)
    assert chosen is not None
    assert params[chosen].sum() <= limit
    assert loss[chosen].sum() == pytest.approx(best[limit], rel=1e-6)


def test_a_limit_is_kept_to_the_last_parameter() -> None:
    loss, params, owner = large(30, 200, seed=1)
    for kept in np.linspace(0.2, 0.9, 15):
        limit = math.floor(params[::201].sum() * kept)
        chosen = least(loss, params[None], np.array([float(limit)]), owner)
        assert chosen is not None
        assert params[chosen].sum() <= limit


@settings(max_examples=40)
@given(spaces(), st.integers(0, 99), st.floats(0.3, 1.0))
def test_the_order_of_candidates_does_not_matter(
    found: list[Candidate], seed: int, share: float
) -> None:
    found = [c.model_copy(update={"ranks": (i,)}) for i, c in enumerate(found)]
    shuffled = random.Random(seed).sample(found, len(found))
    try:
        limits = {"params": share * TOTAL.params}
        here, there = options(found), options(shuffled)
        first = here.choices(knapsack(here, limits, "sensitivity"))
    except GoalError:
        return
    assert first == there.choices(knapsack(there, limits, "sensitivity"))


@settings(max_examples=60)
@given(spaces(), st.floats(0.0, 1.0))
def test_threshold_takes_the_smallest_that_is_similar_enough(
    found: list[Candidate], similarity: float
) -> None:
    opened = options(found)
    for choice in opened.choices(threshold(opened, similarity)):
        near = [c for c in found if c.layer == choice.layer and c.similarity >= similarity]
        if choice.candidate is None:
            assert not near
        else:
            assert choice.candidate in near
            assert choice.candidate.cost.params == min(c.cost.params for c in near)


@settings(max_examples=100)
@given(spaces(), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
def test_thresholds_within_limits_are_those_that_trying_all_finds(
    found: list[Candidate], params: float, latency: float
) -> None:
    opened = options(found)
    limits = {"params": params * TOTAL.params, "latency": latency * opened.before("latency")}

    def plan_fits(level: float) -> bool:
        rows = threshold(opened, level)
        return all(opened.total(name, rows) <= limits[name] + 1e-9 for name in limits)

    levels = sorted({c.similarity for c in found} | {math.inf}, reverse=True)
    fitting = [level for level in levels if plan_fits(level)]
    if not fitting:
        with pytest.raises(GoalError, match="no similarity threshold meets the goal"):
            thresholds_within(opened, limits)
        return
    highest, *_, lowest = (*thresholds_within(opened, limits),) * 2
    assert (threshold(opened, highest) == threshold(opened, fitting[0])).all()
    assert (threshold(opened, lowest) == threshold(opened, fitting[-1])).all()


def test_threshold_for_a_budget_is_the_highest_that_fits() -> None:
    opened = options([candidate("a", 100 - 10 * i, 900, i, 1 - i / 10) for i in range(1, 9)])
    (highest, *_) = thresholds_within(opened, {"params": TOTAL.params - 45})
    assert opened.total("params", threshold(opened, highest)) == TOTAL.params - 50


def reached(message: str) -> dict[str, float]:
    """The settings, absolute ones, that a message says can be reached."""
    offered = re.findall(r"(max_\w+) ([\d.e+-]+)", message)
    return {name: float(value.rstrip(".")) for name, value in offered}


@settings(max_examples=100)
@given(spaces(), st.dictionaries(st.sampled_from(LIMITED[:5]), st.floats(0.1, 0.7), min_size=1))
def test_what_is_said_to_be_reachable_is(found: list[Candidate], shares: dict[str, float]) -> None:
    opened = options(found)
    scale = {name: opened.before(name) or 8.0 for name in LIMITED}
    limits = {name: share * scale[name] for name, share in shares.items()}
    try:
        knapsack(opened, limits, "error")
    except GoalError as refused:
        message = str(refused)
    else:
        return
    nearest = message.split("at once: " if "(all limits" in message else "nearest has ")[-1]
    settings_of = {QUANTITIES[name].ceiling: name for name in limits}
    again = {settings_of[name]: value for name, value in reached(nearest).items()}
    assert again.keys() == limits.keys()
    chosen = knapsack(opened, again, "error")
    assert all(opened.total(name, chosen) <= limit + 1e-9 for name, limit in again.items())


def test_a_goal_out_of_reach_names_what_is_reachable() -> None:
    opened = options([candidate("a", 10, 10, 1.0), candidate("a", 1, 2000, 1.0)])
    with pytest.raises(
        GoalError,
        match=r"params_reduction 0.500 cannot be reached: the smallest plan reaches "
        r"params_reduction 0.220 \(max_params 351\); ask for that or less",
    ):
        knapsack(opened, {"params": TOTAL.params / 2}, "error")
    with pytest.raises(GoalError, match=r"params_reduction 0.220 .*all limits at once: params_red"):
        knapsack(opened, {"params": TOTAL.params / 2, "macs": TOTAL.macs}, "error")
    with pytest.raises(GoalError, match=r"params_reduction 0.220 \(max_params 351\) at the lowest"):
        thresholds_within(opened, {"params": TOTAL.params / 2})
    with pytest.raises(GoalError, match=r"policy vbmf .* params_reduction 0.000 \(max_params 450"):
        check_limits(opened, {"params": 400}, opened.unchanged(), "vbmf")


def test_goals_that_exclude_each_other() -> None:
    opened = options([candidate("a", 10, 1000, 1.0), candidate("a", 99, 10, 1.0)])
    limits = {"params": TOTAL.params - 80.0, "macs": TOTAL.macs - 900.0}
    with pytest.raises(GoalError) as refused:
        knapsack(opened, limits, "error")
    assert str(refused.value) == (
        "no plan meets params_reduction 0.178 and macs_reduction 0.180 at once, though each alone "
        "can be met; the nearest has params_reduction 0.002 (max_params 449), macs_reduction 0.198 "
        "(max_macs 4010); ask for that or less"
    )


def test_limits_come_from_every_setting_of_the_goal() -> None:
    opened = options([candidate("a", 10, 10, 0.5, latency_ms=1.0)])
    goal = Goal(
        params_reduction=0.1,
        max_params=420,
        max_macs=4500,
        macs_reduction=0.2,
        bytes_reduction=0.1,
        max_latency_ms=5.0,
        max_predicted_loss=2.0,
    )
    assert limits_of(goal, opened) == pytest.approx(
        {
            "params": 405,
            "macs": 4000,
            "bytes": 1350,
            "latency": 5.0,
            "sensitivity": 2.0,
        }
    )


def test_latency_goals_need_latencies() -> None:
    opened = options([candidate("a", 10, 10, 0.5)])
    with pytest.raises(GoalError, match="`lrf profile`"):
        limits_of(Goal(latency_reduction=0.1), opened)
    with pytest.raises(GoalError, match=r"explore\.latency"):
        knapsack(opened, {"sensitivity": 1.0}, "latency")
    assert "latency" not in opened.totals(opened.unchanged())


def test_totals_are_of_the_whole_model() -> None:
    found = [candidate("b", 40, 300, 0.5, similarity=0.75, latency_ms=1.0)]
    opened = options(found)
    rows = knapsack(opened, {}, "params")
    choices = opened.choices(rows)
    after = total_after(choices, TOTAL)
    assert opened.totals(rows) == pytest.approx(
        {
            "params": after.params,
            "macs": after.macs,
            "bytes": 1500 - 60 * 2,
            "latency": 2.0 + 1.0 + 0.5,
            "sensitivity": predicted_loss(choices),
            "error": 0.25,
        }
    )
    assert within(np.array([10.0]), np.array([10.0]))
    assert not within(np.array([10.0 + 1e-9]), np.array([10.0]))


def test_what_is_minimised_can_be_chosen() -> None:
    harmless = candidate("a", 50, 50, loss=0.1, similarity=0.2)
    faithful = candidate("a", 50, 50, loss=0.9, similarity=0.99)
    opened = options([harmless, faithful])
    for loss, best in (("sensitivity", harmless), ("error", faithful)):
        choice, *_ = opened.choices(knapsack(opened, {"params": TOTAL.params - 50}, loss))
        assert choice.candidate == best
