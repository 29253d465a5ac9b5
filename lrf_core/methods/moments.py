"""Statistics of a layer on the calibration samples: what factors are fitted to and judged on.

The second moment `S` of the input rows is a full matrix, or the root of one.

A layer with more inputs than rows were seen (a dense layer behind a flattened map) has a second
moment of low rank: `S = R^T R` with `R` `(q, n)`, `q < n`. The root then is exact and far smaller.
Either is one array; the shape tells which.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_Real = TypeVar("_Real", Matrix, NDArray[np.float32])

# Numbers in a second moment up to which it is kept, and multiplied, in float64.
LARGEST_DOUBLE = 2048**2

_BLOCK = 512

# Above this width no full second moment is kept: 8192^2 doubles are half a gibibyte.
MAX_FULL_WIDTH = 8192


def is_root(values: Matrix) -> bool:
    """Whether an array is a root `(q, n)` rather than a full second moment `(n, n)`."""
    return bool(values.shape[0] != values.shape[1])


def variance_of(values: Matrix) -> Matrix:
    """The diagonal of `S`, `(n,)`."""
    if is_root(values):
        return np.asarray(np.einsum("qn,qn->n", values, values), np.float64)
    return np.asarray(np.diag(values), np.float64)


@dataclass(frozen=True)
class SecondMoment:
    """`S + ridge`, as an operator.

    Attributes:
        values: `S`, `(n, n)`, or its root `(q, n)`.
        ridge: what is to be added to the diagonal.
    """

    values: Matrix
    ridge: float = 0.0

    def variance(self) -> Matrix:
        """The diagonal, `(n,)`."""
        return np.asarray(variance_of(self.values) + self.ridge)

    @property
    def size(self) -> int:
        """Numbers that one product reads."""
        return self.values.size

    def times(self, matrix: _Real) -> _Real:
        """`(S + ridge) @ matrix`, in the precision of the two."""
        product = _product(self.values, matrix)
        if is_root(self.values):
            product = _product(self.values.T, product)
        product += matrix.dtype.type(self.ridge) * matrix
        return product

    def gram(self, matrix: Matrix) -> Matrix:
        """`matrix^T (S + ridge) matrix` in float64; of wide layers computed in float32.

        Products of tall dictionaries take the longest.
        """
        if self.size <= LARGEST_DOUBLE:
            return np.asarray(matrix.T @ self.times(matrix))
        single = matrix.astype(np.float32)
        return np.asarray(single.T @ self._single.times(single), np.float64)

    @cached_property
    def _single(self) -> SecondMoment:
        return self.single()

    def single(self) -> SecondMoment:
        """In float32."""
        return SecondMoment(self.values.astype(np.float32, copy=False), self.ridge)

    def marginals(self, sizes: Sequence[int]) -> list[Matrix]:
        """Matrices `M_j (d_j, d_j)` whose Kronecker product approximates `S + ridge`.

        Each is `S` summed over the diagonals of all other modes; the scale is in the last.

        Args:
            sizes: of the modes that the `n` inputs are split into, row-major.
        """
        found = [
            self._marginal(mode, sizes)
            + self.ridge * math.prod(sizes) / sizes[mode] * np.eye(sizes[mode])
            for mode in range(len(sizes))
        ]
        scaled = [M * (len(M) / np.trace(M)) for M in found[:-1]]
        return [*scaled, found[-1] / math.prod(sizes[:-1])]

    def _marginal(self, mode: int, sizes: Sequence[int]) -> Matrix:
        letters = string.ascii_lowercase[: len(sizes)]
        if is_root(self.values):
            split = np.moveaxis(self.values.reshape(-1, *sizes), mode + 1, 0)
            flat = split.reshape(sizes[mode], -1)
            return np.asarray(flat @ flat.T, np.float64)
        columns = letters.replace(letters[mode], "Z")
        tensor = self.values.reshape(*sizes, *sizes)
        return np.asarray(np.einsum(f"{letters}{columns}->{letters[mode]}Z", tensor), np.float64)


def _product(values: Matrix, matrix: _Real) -> _Real:
    """`values @ matrix` in the precision of the matrix, some rows at a time if they differ."""
    if values.dtype == matrix.dtype:
        return np.asarray(values @ matrix)
    blocks = (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
    return np.concatenate([block.astype(matrix.dtype) @ matrix for block in blocks])


@dataclass(frozen=True)
class Moments:
    """Statistics of one layer on the calibration samples.

    Attributes:
        second: second moment `S` of the input rows, summed over positions, mean over samples:
            `(n, n)`, or its root `(q, n)` with `S = R^T R` where fewer rows than inputs were seen.
            Of wide layers in float32: that rounds its entries by less than the float32 products
            that they are sums of, and far below the ridge.
        gradient: second moment `F` of the loss gradient at the layer's output, `(c, c)`, summed
            over positions, mean over samples; None if the model gives no gradient.
        rows: sampled input rows, `(m, n)`.
        rows_seen: how many rows `second` was summed over.
    """

    second: Matrix
    gradient: Matrix | None
    rows: NDArray[np.float32]
    rows_seen: int

    @property
    def ridge(self) -> float:
        """What is added to the diagonal of `S` so that directions without data fall back to the
        weight error: `n / (n + rows)` of 1% of the mean variance. That is large where few rows
        were seen for many inputs, where a fit to the calibration data alone would not generalize.
        """
        variance = variance_of(self.second)
        mean = float(variance.mean()) or 1.0
        return 0.01 * len(variance) / (len(variance) + self.rows_seen) * mean + 1e-9 * mean

    def regularized(self) -> SecondMoment:
        """`S` with its ridge."""
        return SecondMoment(self.second, self.ridge)

    def full_second(self) -> Matrix:
        """`S` as a full matrix, `(n, n)`."""
        full = self.second.T @ self.second if is_root(self.second) else self.second
        return np.asarray(full, np.float64)

    def regularized_second(self) -> Matrix:
        """`S` with its ridge as a full matrix, `(n, n)`."""
        full = np.array(self.full_second())
        full.flat[:: len(full) + 1] += self.ridge
        return full

    def times(self, matrix: Matrix) -> Matrix:
        """`S @ matrix`, without the ridge."""
        return SecondMoment(self.second).times(matrix)

    def quadratic(self, kernel: Matrix) -> Matrix:
        """`W^T S W`, `(c, c)`, for a kernel `(n, c)`."""
        if is_root(self.second):
            answers = self.second.astype(kernel.dtype, copy=False) @ kernel
            return np.asarray(answers.T @ answers)
        return np.asarray(kernel.T @ _product(self.second, kernel))

    def output_weight(self, outputs: int) -> Matrix:
        """The weight on output errors that factors are fitted under, `(outputs, outputs)`.

        `F`, shrunk by 20% to its mean so that it stays well conditioned; the identity where there
        is no gradient.
        """
        if self.gradient is None or not np.trace(self.gradient) > 0:
            return np.eye(outputs)
        mean = np.trace(self.gradient) / outputs
        return np.asarray(0.8 * self.gradient + 0.2 * mean * np.eye(outputs))
