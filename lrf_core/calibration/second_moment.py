"""Sums of outer products of rows: products of many rows at once, added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk

from lrf_core.methods.moments import MAX_FULL_WIDTH, Matrix

# Rows multiplied at once, at least; otherwise as many as they are wide.
_LEAST_ROWS = 1024
# Rows that stand for all where they are too wide for a full matrix.
ROOT_ROWS = 2048


class SecondMoment:
    """`sum of r r^T` over rows `r`, or its root if there are fewer rows than they are wide.

    Rows wait until there are as many as they are wide: then their product, in float32 by BLAS
    (`syrk`: half the work of a general product), costs more than adding it to the sum. Rows too
    wide for a full matrix are never multiplied: a seeded reservoir of them stands for all.

    Attributes:
        rows: how many rows were added.
    """

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._width = width
        self._sum: Matrix | None = None
        self._waiting: NDArray[np.float32] | None = None
        self._filled = 0
        self._rng = np.random.default_rng(width)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows `(m, width)`."""
        while len(rows):
            if self._waiting is None:
                self._waiting = np.empty((rows_at_once(self._width), self._width), np.float32)
            if self._filled == len(self._waiting):
                if is_wide(self._width):
                    self._exchange(rows)
                    return
                self._multiply()
            part = rows[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            self.rows += len(part)
            rows = rows[len(part) :]

    def total(self) -> Matrix:
        """The sum `S`, `(width, width)`, or its root `(q, width)` with `S = R^T R`, `q < width`."""
        if self._sum is None and self._waiting is not None and self._filled < self._width:
            scale = np.sqrt(self.rows / self._filled)
            return np.asarray(self._waiting[: self._filled] * scale, np.float64)
        return self.full()

    def full(self) -> Matrix:
        """The sum, `(width, width)`."""
        self._multiply()
        self._waiting = None
        if self._sum is None:
            return np.zeros((self._width, self._width))
        return _mirrored(self._sum)

    def _exchange(self, rows: NDArray[np.float32]) -> None:
        """Give each row the place of a kept one, as likely as any other (Vitter 1985)."""
        kept = self._waiting
        if kept is None:
            return
        seen = self.rows + 1 + np.arange(len(rows))
        slots = self._rng.integers(seen)
        for row in np.flatnonzero(slots < len(kept)):
            kept[slots[row]] = rows[row]
        self.rows += len(rows)

    def _multiply(self) -> None:
        if self._filled and self._waiting is not None:
            # The upper triangle in Fortran's order is the lower one in C's.
            self._accumulate(ssyrk(1.0, self._waiting[: self._filled].T).T)
            self._filled = 0

    def _accumulate(self, part: NDArray[Any]) -> None:
        if self._sum is None:
            self._sum = part.astype(np.float64)
        else:
            self._sum += part


def is_wide(width: int) -> bool:
    """Whether rows of this width are too many numbers for a full matrix."""
    return width > MAX_FULL_WIDTH


def rows_at_once(width: int) -> int:
    """How many rows wait to be multiplied; of wide ones, how many are kept."""
    return ROOT_ROWS if is_wide(width) else max(width, _LEAST_ROWS)


def _mirrored(lower: Matrix) -> Matrix:
    """The symmetric matrix of this lower triangle, in place, block by block."""
    for start in range(0, len(lower), _LEAST_ROWS):
        end = start + _LEAST_ROWS
        block = np.tril(lower[start:end, start:end])
        lower[start:end, start:end] = block + np.tril(block, -1).T
        lower[start:end, end:] = lower[end:, start:end].T
    return lower
