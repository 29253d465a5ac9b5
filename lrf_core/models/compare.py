"""Compare the answers of two models on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.data import Split
from lrf_core.models.measure import is_right, share_right

Array = npt.NDArray[Any]

BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class Comparison:
    """What changes from one model to the other.

    Attributes:
        drop: accuracy points lost.
        interval: 95% interval of `drop`.
        agreement: percent of samples given the same class.
    """

    drop: float
    interval: tuple[float, float]
    agreement: float


def compare(before: Array, after: Array, split: Split, seed: int) -> Comparison:
    """Compare the finite answers `(count, classes)` of two models on labelled samples."""
    right_before, right_after = is_right(before, split), is_right(after, split)
    lost = int(np.sum(right_before & ~right_after))
    won = int(np.sum(~right_before & right_after))
    return Comparison(
        drop=100.0 * (lost - won) / split.count,
        interval=drop_interval(lost, won, split.count, seed),
        agreement=share_right(before.argmax(axis=-1) == after.argmax(axis=-1)),
    )


def drop_interval(lost: int, won: int, count: int, seed: int) -> tuple[float, float]:
    """95% interval of the accuracy drop (points), by paired percentile bootstrap.

    A sample is lost, won, or as right or wrong as before. Drawing `count` pairs with replacement
    gives multinomial numbers of each, so these are drawn directly: the same distribution, without
    touching the samples. With nothing lost or won the interval has no width.

    Args:
        lost: samples that only the first model gets right.
        won: samples that only the second model gets right.
        count: all samples.

    References:
        Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    shares = np.array([lost, won, count - lost - won]) / count
    draws = np.random.default_rng(seed).multinomial(count, shares, size=BOOTSTRAP_DRAWS)
    drops = 100.0 * (draws[:, 0] - draws[:, 1]) / count
    low, high = np.percentile(drops, (2.5, 97.5))
    return float(low), float(high)
