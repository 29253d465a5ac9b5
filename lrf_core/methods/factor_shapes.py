"""Split a dense layer's sizes into modes of about equal size; awkward sizes are padded."""

from __future__ import annotations

import itertools
import math

from lrf_core.methods.base import Geometry
from lrf_core.methods.tt_matrix import Modes

# Largest factor over smallest: 10 = 5 x 2 is taken as it is, 14 becomes 15 = 5 x 3.
_LARGEST_RATIO = 2.5
# Layers with more weights are offered one shape only: every fit reads the whole kernel many times.
MANY_WEIGHTS = 2**23


def shapes(geometry: Geometry) -> list[Modes]:
    """Two and three modes, for the largest layers three; none that would have modes of size 1 x 1.

    Input modes fall and output modes rise, so that the first cores, which see the most values,
    narrow them the most.
    """
    largest = geometry.inputs * geometry.outputs > MANY_WEIGHTS
    offered = []
    for count in (3,) if largest else (2, 3):
        inputs = balanced_factors(geometry.inputs, count)
        outputs = balanced_factors(geometry.outputs, count)[::-1]
        if all(m * n > 1 for m, n in zip(inputs, outputs, strict=True)):
            offered.append(Modes(inputs, outputs))
    return offered


def balanced_factors(size: int, count: int) -> tuple[int, ...]:
    """`count` factors of the least number from `size` up that splits evenly, largest first."""
    splits = (_most_even(total, count) for total in itertools.count(size))
    return next(split for split in splits if split[0] <= _LARGEST_RATIO * split[-1])


def _most_even(total: int, count: int) -> tuple[int, ...]:
    """The factors of `total` with the least sum, largest first."""
    if count == 1:
        return (total,)
    divisors = (d for d in range(1, math.isqrt(total) + 1) if total % d == 0)
    pairs = (pair for d in divisors for pair in ((d, total // d), (total // d, d)))
    splits = ((first, *_most_even(rest, count - 1)) for first, rest in pairs)
    return tuple(sorted(min(splits, key=sum), reverse=True))
