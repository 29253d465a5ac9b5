"""Sums of outer products of rows: products of many rows at once, added up in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk

from lrf_core.methods.base import MAX_FULL_WIDTH, Matrix

# Rows multiplied at once, at least; otherwise as many as they are wide.
_LEAST_ROWS = 1024


class SecondMoment:
    """`sum of r r^T` over rows `r`, or its diagonal where the full matrix would be too large.

    Rows wait until there are as many as they are wide: then their product, in float32 by BLAS
    (`syrk`: half the work of a general product), costs more than adding it to the sum.

    Attributes:
        rows: how many rows were added.
    """

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._width = width
        self._sum: Matrix | None = None
        self._waiting: NDArray[np.float32] | None = None
        self._filled = 0

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows `(m, width)`."""
        self.rows += len(rows)
        if is_wide(self._width):
            self._accumulate(np.einsum("mn,mn->n", rows, rows, dtype=np.float64))
            return
        while len(rows):
            if self._waiting is None:
                self._waiting = np.empty((rows_at_once(self._width), self._width), np.float32)
            part = rows[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rows = rows[len(part) :]
            if self._filled == len(self._waiting):
                self._multiply()

    def total(self) -> Matrix:
        """The sum: `(width, width)`, or the diagonal `(width,)`."""
        self._multiply()
        self._waiting = None
        if self._sum is None:
            return np.zeros((self._width,) * (1 if is_wide(self._width) else 2))
        return self._sum if is_wide(self._width) else _mirrored(self._sum)

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
    """Whether only the diagonal is kept of rows of this width."""
    return width > MAX_FULL_WIDTH


def rows_at_once(width: int) -> int:
    """How many rows wait to be multiplied."""
    return max(width, _LEAST_ROWS)


def _mirrored(lower: Matrix) -> Matrix:
    """The symmetric matrix of this lower triangle, in place, block by block."""
    for start in range(0, len(lower), _LEAST_ROWS):
        end = start + _LEAST_ROWS
        block = np.tril(lower[start:end, start:end])
        lower[start:end, start:end] = block + np.tril(block, -1).T
        lower[start:end, end:] = lower[end:, start:end].T
    return lower
