"""Matrices in the tensor-train format: arithmetic on their cores.

Core `k` is `(r, m, n, s)`: rank before, size of input mode `k`, size of output mode `k`, rank
after; the first `r` and the last `s` are 1. With input index `(i_1, ..., i_d)` and output index
`(j_1, ..., j_d)`, both in row-major order, the matrix has the entries
`C_1[:, i_1, j_1, :] C_2[:, i_2, j_2, :] ... C_d[:, i_d, j_d, :]`.

References:
    Oseledets, "Tensor-Train Decomposition" (2011).
    Novikov et al., "Tensorizing Neural Networks" (2015), arXiv 1509.06569.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lrf_core.methods.base import Geometry, Matrix, Ranks

# Rows taken through the cores at once; what is in between may be many times larger than they are.
_BLOCK = 256

Cores = tuple[Matrix, ...]
Single = NDArray[np.float32]
_Real = TypeVar("_Real", Matrix, Single)


@dataclass(frozen=True)
class Modes:
    """How a matrix is cut into modes.

    Attributes:
        inputs: `m_1, ..., m_d`; their product is the number of rows.
        outputs: `n_1, ..., n_d`; their product is the number of columns.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return math.prod(self.inputs), math.prod(self.outputs)

    @property
    def full_ranks(self) -> Ranks:
        """The ranks at which every matrix can be written in this format."""
        pairs = [m * n for m, n in zip(self.inputs, self.outputs, strict=True)]
        return tuple(
            min(math.prod(pairs[:cut]), math.prod(pairs[cut:])) for cut in range(1, len(pairs))
        )

    def core_shapes(self, ranks: Ranks) -> list[tuple[int, int, int, int]]:
        """`(r, m, n, s)` of every core."""
        around = (1, *ranks, 1)
        return list(zip(around[:-1], self.inputs, self.outputs, around[1:], strict=True))

    def unfolded(self, matrix: Matrix, cut: int) -> Matrix:
        """The matrix `(m_1 n_1 ... , ... m_d n_d)`, the first `cut` modes against the rest."""
        m, n = math.prod(self.inputs[:cut]), math.prod(self.outputs[:cut])
        split = matrix.reshape(m, -1, n, math.prod(self.outputs[cut:]))
        return np.asarray(split.swapaxes(1, 2).reshape(m * n, -1))


def ranks_of(cores: Cores) -> Ranks:
    return tuple(core.shape[0] for core in cores[1:])


def left_part(cores: Sequence[_Real]) -> _Real:
    """The product of the first cores, `(m_1 ... m_k, n_1 ... n_k, s)`."""
    part = np.ones((1, 1, 1), cores[0].dtype if cores else np.float32)
    for core in cores:
        joined = np.tensordot(part, core, 1).swapaxes(1, 2)
        rows, m, columns, n, rank = joined.shape
        part = joined.reshape(rows * m, columns * n, rank)
    return part


def right_part(cores: Sequence[_Real]) -> _Real:
    """The product of the last cores, `(r, m_k ... m_d, n_k ... n_d)`."""
    part = np.ones((1, 1, 1), cores[0].dtype if cores else np.float32)
    for core in reversed(cores):
        joined = np.tensordot(core, part, 1).swapaxes(2, 3)
        rank, m, rows, n, columns = joined.shape
        part = joined.reshape(rank, m * rows, n * columns)
    return part


def expanded(cores: Sequence[Matrix]) -> Matrix:
    """The matrix itself, `(m_1 ... m_d, n_1 ... n_d)`."""
    half = (len(cores) + 1) // 2
    joined = np.tensordot(left_part(cores[:half]), right_part(cores[half:]), 1).swapaxes(1, 2)
    rows, m, columns, n = joined.shape
    return np.asarray(joined.reshape(rows * m, columns * n))


def contracted_rows(rows: _Real, cores: Sequence[_Real]) -> _Real:
    """Rows `(q, m_1 ... m_d)` times the first k cores: `(q, n_1 ... n_k, s, m_{k+1} ... m_d)`."""
    part = rows.reshape(len(rows), 1, 1, -1)
    for core in cores:
        r, m, n, s = core.shape
        joined = part.reshape(len(rows), part.shape[1], r * m, -1)
        flat = core.transpose(2, 3, 0, 1).reshape(n * s, r * m)
        part = np.matmul(flat, joined).reshape(len(rows), part.shape[1] * n, s, -1)
    return part


def times(rows: Matrix, cores: Sequence[Matrix]) -> Matrix:
    """`rows @ expanded(cores)`, `(q, n_1 ... n_d)`, mode by mode."""
    if not len(rows):  # a layer that sees nothing but zeros
        return np.zeros((0, math.prod(core.shape[2] for core in cores)))
    blocks = np.split(rows, range(_BLOCK, len(rows), _BLOCK))
    return np.concatenate(
        [contracted_rows(block, cores).reshape(len(block), -1) for block in blocks]
    )


def projected(matrix: _Real, left: _Real, right: _Real) -> _Real:
    """Contract a matrix with products of cores on both sides, leaving `(r, m, n, s)`.

    Args:
        left: of the cores before, `(m_1 ..., n_1 ..., r)`.
        right: of the cores after, `(s, m_k ..., n_k ...)`.
    """
    rows_before, columns_before, _ = left.shape
    _, rows_after, columns_after = right.shape
    m = matrix.shape[0] // (rows_before * rows_after)
    split = matrix.reshape(rows_before, m, rows_after, columns_before, -1, columns_after)
    # The side with more modes first: what is left then is small.
    if rows_before * columns_before > rows_after * columns_after:
        half = np.tensordot(left, split, ((0, 1), (0, 3)))
        return np.tensordot(half, right, ((2, 4), (1, 2)))
    half = np.tensordot(split, right, ((2, 5), (1, 2)))
    return np.tensordot(left, half, ((0, 1), (0, 2)))


def between(cores: Sequence[Matrix], k: int) -> Matrix:
    """What `projected` leaves of the matrix itself, the cores `k` and `k + 1` open:
    `(r, m_k m_{k+1}, n_k n_{k+1}, s)`."""
    before, after = _gram_before(cores[:k]), _gram_after(cores[k + 2 :])
    left = np.tensordot(before, cores[k], 1)
    right = np.tensordot(cores[k + 1], after, 1)
    joined = np.tensordot(left, right, 1).swapaxes(2, 3)
    r, m, m_next, n, n_next, s = joined.shape
    return np.asarray(joined.reshape(r, m * m_next, n * n_next, s))


def squared_norm(cores: Sequence[Matrix]) -> float:
    """The squared Frobenius norm of the matrix."""
    return float(_gram_before(cores).item())


def _gram_before(cores: Sequence[Matrix]) -> Matrix:
    """Inner products of the columns of `left_part`, `(s, s)`."""
    gram = np.ones((1, 1))
    for core in cores:
        gram = np.tensordot(core, np.tensordot(gram, core, 1), ((0, 1, 2), (0, 1, 2)))
    return gram


def _gram_after(cores: Sequence[Matrix]) -> Matrix:
    """Inner products of the rows of `right_part`, `(r, r)`."""
    gram = np.ones((1, 1))
    for core in reversed(cores):
        gram = np.tensordot(np.tensordot(core, gram, 1), core, ((1, 2, 3), (1, 2, 3)))
    return gram


def moved_right(cores: Sequence[Matrix], k: int) -> list[Matrix]:
    """The same matrix, core `k` with orthonormal columns, the rest of it in core `k + 1`."""
    moved = list(cores)
    r, m, n, s = cores[k].shape
    Q, R = np.linalg.qr(cores[k].reshape(r * m * n, s))
    moved[k] = Q.reshape(r, m, n, -1)
    moved[k + 1] = np.tensordot(R, cores[k + 1], 1)
    return moved


def moved_left(cores: Sequence[Matrix], k: int) -> list[Matrix]:
    """The same matrix, core `k` with orthonormal rows, the rest of it in core `k - 1`."""
    moved = list(cores)
    r, m, n, s = cores[k].shape
    Q, R = np.linalg.qr(cores[k].reshape(r, m * n * s).T)
    moved[k] = Q.T.reshape(-1, m, n, s)
    moved[k - 1] = np.tensordot(cores[k - 1], R.T, 1)
    return moved


def gathered_first(cores: Sequence[Matrix]) -> list[Matrix]:
    """The same matrix, every core but the first with orthonormal rows."""
    moved = list(cores)
    for k in reversed(range(1, len(cores))):
        moved = moved_left(moved, k)
    return moved


def mapped(cores: Sequence[Matrix], rows: Sequence[Matrix], columns: Sequence[Matrix]) -> Cores:
    """The cores of `kron(rows)^T @ matrix @ kron(columns)`, one small matrix for each mode."""
    return tuple(
        np.einsum("mi,rmns,nj->rijs", A, core, B, optimize=True)
        for core, A, B in zip(cores, rows, columns, strict=True)
    )


def with_ranks(cores: Sequence[Matrix], ranks: Ranks) -> Cores:
    """The same matrix at larger ranks: zeros are added."""
    around = (1, *ranks, 1)
    return tuple(
        np.pad(core, ((0, before - core.shape[0]), (0, 0), (0, 0), (0, after - core.shape[3])))
        for core, before, after in zip(cores, around, around[1:], strict=False)
    )


def balanced(cores: Sequence[Matrix]) -> Cores:
    """The same matrix, all cores of one norm, which keeps gradients and rounding alike."""
    norms = [float(np.linalg.norm(core)) for core in cores]
    if min(norms) == 0:
        return tuple(cores)
    mean = math.exp(sum(math.log(norm) for norm in norms) / len(norms))
    return tuple(core * (mean / norm) for core, norm in zip(cores, norms, strict=True))


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
