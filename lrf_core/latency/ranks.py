"""Which ranks of a form are measured, and what lies between them.

Chains of one form that have the same layers fill a box of ranks. Measured are the edges of the box:
one mode runs through its knots while every other mode is at one of its ends. Between the edges, a
box is filled by transfinite interpolation (Gordon and Hall 1973, "Construction of curvilinear
coordinate systems"): the sum of all edges, each weighted linearly by how near it is, less what the
corners were counted too often. With one mode that is piecewise linear interpolation.

Why edges are enough: a chain's work is a sum of products of neighbouring ranks, which is linear in
each rank, so that corners would do except one thing. Kernels work on blocks of channels, so time
rises in steps, and those are alike along parallel edges. A knot on either side of a step keeps it
from being smeared.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lrf_core.methods.base import Ranks

Knots = tuple[tuple[int, ...], ...]

# Vector kernels work on blocks of 8 to 32 channels; at 16 and its doubles most of them step.
_FIRST_STEP = 16
_FEWEST = 4


def box_knots(offered: Iterable[Ranks], most: int) -> Knots:
    """The knots of the smallest box around the ranks offered.

    Args:
        offered: candidates whose chains have the same layers; at least one.
        most: knots in each mode.
    """
    return tuple(mode_knots(sorted(set(values)), most) for values in zip(*offered, strict=True))


def mode_knots(values: Sequence[int], most: int) -> tuple[int, ...]:
    """The ends, and the values on both sides of 16, 32, 64, ...; evenly spaced where that is few.

    Args:
        values: ranks offered in one mode, rising.
        most: knots, at least 2.
    """
    knots = {values[0], values[-1]}
    step = _FIRST_STEP
    while step < values[-1]:
        knots |= {max((v for v in values if v <= step), default=values[0])}
        knots |= {min(v for v in values if v > step)}
        step *= 2
    if len(knots) < _FEWEST:
        knots |= set(_evenly(values, min(_FEWEST, most)))
    return tuple(_evenly(sorted(knots), most))


def edge_ranks(knots: Knots) -> list[Ranks]:
    """The ranks to measure: the knots along every edge of the box."""
    found: dict[Ranks, None] = {}
    for mode, inner in enumerate(knots):
        for corner in itertools.product(*(_ends(other) for other in knots)):
            for rank in inner:
                found[(*corner[:mode], rank, *corner[mode + 1 :])] = None
    return list(found)


def interpolated(knots: Knots, medians_ms: Mapping[Ranks, float], ranks: Ranks) -> float:
    """The latency (ms) at these ranks.

    Exact at measured ranks. Ranks outside of the box are taken to its side, and what comes out lies
    within all that was measured.

    Args:
        medians_ms: of all `edge_ranks`.
    """
    inside = [min(max(rank, mode[0]), mode[-1]) for rank, mode in zip(ranks, knots, strict=True)]
    free = [mode for mode, inner in enumerate(knots) if len(inner) > 1]
    shares = {m: (inside[m] - knots[m][0]) / (knots[m][-1] - knots[m][0]) for m in free}
    if tuple(inside) in medians_ms:
        return medians_ms[tuple(inside)]

    def edge(mode: int, corner: Ranks) -> float:
        along = [medians_ms[(*corner[:mode], r, *corner[mode + 1 :])] for r in knots[mode]]
        return float(np.interp(inside[mode], knots[mode], along))

    total = 0.0
    for corner in itertools.product(*(_ends(inner) for inner in knots)):
        nearness = {m: shares[m] if corner[m] == knots[m][-1] else 1 - shares[m] for m in free}
        for mode in free:
            if corner[mode] == knots[mode][0]:  # each edge once
                others = math.prod(nearness[other] for other in free if other != mode)
                total += others * edge(mode, corner)
        total -= (len(free) - 1) * math.prod(nearness.values()) * medians_ms[corner]
    return min(max(total, min(medians_ms.values())), max(medians_ms.values()))


def _ends(inner: Sequence[int]) -> tuple[int, ...]:
    return (inner[0], inner[-1]) if len(inner) > 1 else (inner[0],)


def _evenly(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(count, len(values)))
    return [values[round(float(place))] for place in places]
