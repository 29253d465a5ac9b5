"""Which ranks are measured, and what lies between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrf_core.latency.ranks import Knots, box_knots, edge_ranks, interpolated, mode_knots
from lrf_core.methods.base import Ranks

rising = st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True).map(sorted).map(tuple)
milliseconds = st.floats(1e-3, 1e3)


@st.composite
def boxes(draw: st.DrawFn, modes: int | None = None) -> tuple[Knots, dict[Ranks, float]]:
    count = modes or draw(st.integers(1, 3))
    knots = tuple(draw(rising) for _ in range(count))
    return knots, {ranks: draw(milliseconds) for ranks in edge_ranks(knots)}


@given(boxes())
def test_exact_where_it_was_measured(box: tuple[Knots, dict[Ranks, float]]) -> None:
    knots, measured = box
    for ranks, latency in measured.items():
        assert interpolated(knots, measured, ranks) == latency


@given(boxes(modes=1), st.integers(1, 600))
def test_with_one_mode_it_lies_between_the_neighbours(
    box: tuple[Knots, dict[Ranks, float]], rank: int
) -> None:
    (knots,), measured = box
    below = max((knot for knot in knots if knot <= rank), default=knots[0])
    above = min((knot for knot in knots if knot >= rank), default=knots[-1])
    ends = measured[(below,)], measured[(above,)]
    found = interpolated((knots,), measured, (rank,))
    assert min(ends) * (1 - 1e-9) <= found <= max(ends) * (1 + 1e-9)


@given(boxes(), st.tuples(*[st.integers(1, 600)] * 3))
def test_it_lies_within_what_was_measured_and_is_clamped_outside(
    box: tuple[Knots, dict[Ranks, float]], anywhere: Ranks
) -> None:
    knots, measured = box
    ranks = anywhere[: len(knots)]
    found = interpolated(knots, measured, ranks)
    assert min(measured.values()) <= found <= max(measured.values())
    nearest = tuple(int(np.clip(r, k[0], k[-1])) for r, k in zip(ranks, knots, strict=True))
    assert found == interpolated(knots, measured, nearest)


@given(st.tuples(rising, rising, rising), st.tuples(*[st.floats(0.01, 1)] * 4))
def test_work_that_is_linear_in_each_rank_comes_out_exactly(
    knots: Knots, factors: tuple[float, ...]
) -> None:
    start, first, core, last = factors

    def truth(ranks: Ranks) -> float:
        a, b, c = ranks
        return start + first * a + core * a * b + last * b * c

    measured = {ranks: truth(ranks) for ranks in edge_ranks(knots)}
    between = [(mode[0] + mode[-1]) // 2 for mode in knots]
    for ranks in itertools.product(*({mode[0], m} for mode, m in zip(knots, between, strict=True))):
        assert interpolated(knots, measured, ranks) == pytest.approx(truth(ranks), rel=1e-9)


def test_steps_along_one_mode_are_kept_inside_of_the_box() -> None:
    """Time that rises in blocks of 32 channels, at ranks on neither edge."""
    values = [(a, b) for a in range(4, 64, 4) for b in range(4, 64, 4)]
    knots = box_knots(values, 8)

    def truth(ranks: Ranks) -> float:
        return 1 + ranks[0] * 32 * -(-ranks[1] // 32) / 1000

    measured = {ranks: truth(ranks) for ranks in edge_ranks(knots)}
    assert len(measured) < len(values) / 8
    for ranks in values:
        assert interpolated(knots, measured, ranks) == pytest.approx(truth(ranks))


@pytest.mark.parametrize(
    ("values", "most", "knots"),
    [
        ([7], 8, (7,)),
        ([1, 2], 8, (1, 2)),
        (range(1, 15), 8, (1, 5, 10, 14)),
        (range(4, 64, 4), 8, (4, 16, 20, 32, 36, 60)),
        (range(24, 265, 24), 8, (24, 48, 72, 120, 144, 240, 264)),
        (range(4, 64, 4), 2, (4, 60)),
        (range(4, 64, 4), 3, (4, 20, 60)),
    ],
)
def test_knots(values: range, most: int, knots: tuple[int, ...]) -> None:
    assert mode_knots(list(values), most) == knots


@given(rising, st.integers(2, 12))
def test_the_ends_are_always_measured(values: tuple[int, ...], most: int) -> None:
    knots = mode_knots(values, most)
    assert (knots[0], knots[-1]) == (values[0], values[-1])
    assert len(knots) <= most
    assert set(knots) <= set(values)
    assert list(knots) == sorted(set(knots))
