"""Fit the cores of a TT-matrix to the feature map: alternating least squares on whitened modes.

The error `tr(F D^T S D)`, `D = W - W'`, is minimised over one core at a time, the others fixed. Two
approximations keep that small for wide layers; both are exact where the layer has no more inputs
than `PRINCIPAL_ROWS`. `S` is replaced by its leading principal directions, and what they leave out
by a Kronecker product of one matrix for each mode. The same product (and one for `F`) whitens the
kernel mode by mode, which keeps the tensor-train format and makes the problems well conditioned:
in what follows `V`, `X` and `H` are the kernel, the principal directions and `F` in that basis, and
`|X D H^(1/2)|^2 + rest |D|^2` is the error.

References:
    Holtz, Rohwedder, Schneider, "The alternating linear scheme for tensor optimization in the
    tensor train format" (2012).
    Dolgov, Savostyanov, "Alternating minimal energy methods" (2014): ranks grow by directions of
    the residual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, cg

from lrf_core.methods.base import Matrix, Moments, Ranks, lower_factor
from lrf_core.methods.moments import SecondMoment, is_root
from lrf_core.methods.tt_matrix import (
    Cores,
    Modes,
    Single,
    between,
    contracted_rows,
    gathered_first,
    left_part,
    mapped,
    moved_left,
    moved_right,
    projected,
    right_part,
    squared_norm,
    times,
)

# Directions of the input that the fit sees one by one. Time grows with them; with half as many the
# largest ranks end at two to three times the error.
PRINCIPAL_ROWS = 64
# Steps of conjugate gradients per core: the sums are only improved, the next sweep goes on.
_GRADIENT_STEPS = 15
# Kernels of more weights are fitted in float32, in fewer steps.
_MANY_WEIGHTS = 2**22
_STEPS_OF_MANY = 6
# Of the mean variance, for padded inputs and outputs.
_PADDED_VARIANCE = 0.01
_OVERSAMPLED = 8
_BLOCK = 512


@dataclass(frozen=True)
class Whitening:
    """Lower factors of the Kronecker approximations of `S` and `F`, one for each mode."""

    inputs: tuple[Matrix, ...]
    outputs: tuple[Matrix, ...]

    def applied(self, cores: Sequence[Matrix]) -> Cores:
        """From cores of a kernel to cores of the whitened kernel."""
        return mapped(cores, self.inputs, self.outputs)

    def undone(self, cores: Sequence[Matrix]) -> Cores:
        """From cores of the whitened kernel to cores of the kernel."""
        return mapped(cores, _inverses(self.inputs), _inverses(self.outputs))


@dataclass(frozen=True)
class Target:
    """What cores are fitted to; sizes with padding, `m = prod(m_k)`, `n = prod(n_k)`.

    Attributes:
        kernel: `V`, `(m, n)`.
        rows: `X`, `(q, m)`.
        weight: `H`, `(n, n)`.
        answers: `X V`, `(q, n)`.
        wanted: `X V H`, `(q, n)`.
        energy: `|V|^2`.
        rest: share of the input's variance that `X` leaves out.
    """

    modes: Modes
    whitening: Whitening
    kernel: Matrix
    rows: Matrix
    weight: Matrix
    answers: Matrix
    wanted: Matrix
    energy: float
    rest: float

    @classmethod
    def of(cls, kernel: Matrix, moments: Moments, modes: Modes) -> Target:
        """The fit of a layer's kernel `(inputs, outputs)`, zeros added to fill the modes."""
        second, outputs = moments.regularized(), kernel.shape[1]
        weight = moments.output_weight(outputs)
        whitening = Whitening(
            _mode_factors(second, modes.inputs),
            _mode_factors(SecondMoment(weight), modes.outputs),
        )
        into = [inverse.T for inverse in _inverses(whitening.inputs)]
        out = [inverse.T for inverse in _inverses(whitening.outputs)]
        principal = principal_rows(second, PRINCIPAL_ROWS)
        variance = float(second.variance().sum())
        whole = padded(kernel.astype(_precision(kernel), copy=False), modes.shape)
        V = _whitened(whole, whitening)
        X = _times_kronecker(padded(principal, (len(principal), modes.shape[0])), into)
        H = _times_kronecker(padded(weight, (modes.shape[1],) * 2), out)
        H = _times_kronecker(H.T, out)
        exact = len(kernel) <= PRINCIPAL_ROWS
        rest = 0.0 if exact else max(0.0, 1 - float(np.vdot(principal, principal)) / variance)
        answers = (X.astype(V.dtype) @ V).astype(np.float64)
        energy = float(np.vdot(V, V))
        return cls(modes, whitening, V, X, H, answers, answers @ H, energy, rest)

    def error(self, cores: Sequence[Matrix]) -> float:
        """`tr(F D^T S D)`, as far as the fit sees it; the matrix itself is never expanded."""
        XD = self.answers - times(self.rows, cores)
        seen = float(np.vdot(XD @ self.weight, XD))
        if not self.rest:
            return seen
        own = [core.astype(self.kernel.dtype) for core in cores[:-1]]
        kept = projected(self.kernel, left_part(own), right_part(own[:0]))
        D = self.energy - 2 * float(np.vdot(kept, cores[-1])) + squared_norm(cores)
        return seen + self.rest * D


def swept(target: Target, cores: Sequence[Matrix], ranks: Ranks) -> Cores:
    """Cores of these ranks with no larger error, once to the last core and back.

    Args:
        cores: of the whitened kernel, of no larger ranks.
    """
    found = gathered_first(cores)
    bonds = range(len(found) - 1)
    for k in bonds:
        found[k] = _solved(target, found, k)
        found = _widened(target, moved_right(found, k), k, ranks[k])
    found[-1] = _solved(target, found, len(found) - 1)
    for k in reversed(bonds):
        found = moved_left(found, k + 1)
        found[k] = _solved(target, found, k)
    return tuple(found)


def principal_rows(second: SecondMoment, count: int) -> Matrix:
    """`X`, `(q, n)`, with `X^T X` near `S`: its leading eigenvectors, or all of it if `n <= q`.

    By subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4).
    """
    values = second.values
    if is_root(values):
        U = leading_directions(values, count)
        return np.asarray(U.T @ values)
    values = values.astype(np.float64, copy=False)
    if len(values) <= count:
        return lower_factor(values + second.ridge * np.eye(len(values))).T
    basis = leading_directions(values, count, iterations=3)
    energies, vectors = np.linalg.eigh(basis.T @ values @ basis)
    energies = np.maximum(energies + second.ridge, 0)
    return np.asarray(np.sqrt(energies)[:, None] * (basis @ vectors).T)


def leading_directions(matrix: Matrix, count: int, iterations: int = 2) -> Matrix:
    """About the leading left singular vectors, `(rows, count)`, leading first; count may be less.

    Orthonormal. Exact where `count` reaches a size of the matrix.
    """
    count = min(count, *matrix.shape)
    sampled = min(count + _OVERSAMPLED, *matrix.shape)
    start = np.random.default_rng(0).normal(size=(matrix.shape[1], sampled)).astype(matrix.dtype)
    basis = np.linalg.qr(matrix @ start)[0]
    for _ in range(iterations):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    U = np.linalg.svd(basis.T @ matrix, full_matrices=False)[0]
    return np.asarray((basis @ U)[:, :count])


@dataclass(frozen=True)
class _Problem:
    """How the answers to `X` depend on one core `(r, m, n, s)`, the others fixed.

    Single precision: it is only used for steps from where the core is.

    Attributes:
        design: `(q * before * after, r * m * s)`: a row for each answer except the output index
            of the core, which does not mix with others.
        before, after: product of the output sizes before and after the core.
    """

    design: Single
    shape: tuple[int, ...]
    before: int
    after: int

    @classmethod
    def of(cls, target: Target, cores: Sequence[Matrix], k: int, right: Single) -> _Problem:
        r, m, _, s = shape = cores[k].shape
        earlier = [core.astype(np.float32) for core in cores[:k]]
        left = contracted_rows(target.rows.astype(np.float32), earlier)
        before, after = left.shape[1], right.shape[2]
        turned = right.transpose(1, 2, 0).reshape(right.shape[1], -1)
        design = (left.reshape(-1, right.shape[1]) @ turned).reshape(-1, r * m, after, s)
        flat = np.ascontiguousarray(design.swapaxes(1, 2)).reshape(-1, r * m * s)
        return cls(flat, shape, before, after)

    def answers(self, core: Single) -> Single:
        """`(q, c)`, for a core given as a vector."""
        r, m, n, s = self.shape
        product = self.design @ core.reshape(r * m, n, s).swapaxes(1, 2).reshape(-1, n)
        split = product.reshape(-1, self.before, self.after, n).swapaxes(2, 3)
        return split.reshape(len(split), -1)

    def transposed(self, answers: Single) -> Single:
        """The transpose of `answers`: a vector, for `(q, c)`."""
        r, m, n, s = self.shape
        split = answers.reshape(-1, self.before, n, self.after).swapaxes(2, 3).reshape(-1, n)
        return (self.design.T @ split).reshape(r * m, s, n).swapaxes(1, 2).ravel()


def _solved(target: Target, cores: Sequence[Matrix], k: int) -> Matrix:
    """Core `k` after some steps of conjugate gradients on its normal equations.

    The other cores must be orthonormal towards it.
    """
    core = cores[k]
    right = right_part([core.astype(np.float32) for core in cores[k + 1 :]])
    problem = _Problem.of(target, cores, k, right)
    missing = target.wanted - times(target.rows, cores) @ target.weight
    slope = problem.transposed(missing.astype(np.float32))
    if target.rest:
        left = left_part([core.astype(np.float32) for core in cores[:k]])
        kept = projected(target.kernel.astype(np.float32, copy=False), left, right)
        slope += target.rest * (kept - core).astype(np.float32).ravel()
    weight = target.weight.astype(np.float32)

    def normal(step: Single) -> Single:
        weighted = problem.answers(step) @ weight
        return problem.transposed(weighted) + np.float32(target.rest) * step

    operator = LinearOperator((slope.size, slope.size), normal, dtype=np.float32)
    step, _ = cg(operator, slope, rtol=1e-6, maxiter=_steps(target.kernel))
    return np.asarray(core + step.reshape(core.shape))


def _widened(target: Target, cores: Sequence[Matrix], k: int, rank: int) -> list[Matrix]:
    """The same matrix with more columns in core `k`, zeros for them in the next.

    The columns are the residual's leading directions beyond those that core `k` has.
    """
    r, m, n, s = cores[k].shape
    if rank <= s:
        return list(cores)
    own = [core.astype(target.kernel.dtype) for core in cores]
    sides = left_part(own[:k]), right_part(own[k + 2 :])
    # Of the residual, whose other part is what the two cores are between the same sides.
    pair = projected(target.kernel, *sides).astype(np.float64)
    pair -= between(cores, k)
    pair = pair.reshape(r, m, -1, n, cores[k + 1].shape[2], pair.shape[-1])
    unfolded = pair.transpose(0, 1, 3, 2, 4, 5).reshape(r * m * n, -1)
    present = cores[k].reshape(r * m * n, s)
    unfolded = unfolded - present @ (present.T @ unfolded)
    added = leading_directions(unfolded, min(rank, r * m * n) - s)
    Q, R = np.linalg.qr(np.hstack([present, added]))
    wider = list(cores)
    wider[k] = Q.reshape(r, m, n, -1)
    wider[k + 1] = np.tensordot(R[:, :s], cores[k + 1], 1)
    return wider


def _whitened(kernel: Matrix, whitening: Whitening) -> Matrix:
    """`kron(inputs)^T @ kernel @ kron(outputs)`, block by block: kernels may be large."""
    found = np.empty_like(kernel)
    for start in range(0, len(kernel), _BLOCK):
        rows = slice(start, start + _BLOCK)
        found[rows] = _times_kronecker(kernel[rows], whitening.outputs)
    for start in range(0, kernel.shape[1], _BLOCK):
        columns = slice(start, start + _BLOCK)
        found[:, columns] = _times_kronecker(found[:, columns].T, whitening.inputs).T
    return found


def _precision(kernel: Matrix) -> npt.DTypeLike:
    return np.float32 if kernel.size > _MANY_WEIGHTS else np.float64


def _steps(kernel: Matrix) -> int:
    return _STEPS_OF_MANY if kernel.size > _MANY_WEIGHTS else _GRADIENT_STEPS


def _mode_factors(second: SecondMoment, sizes: tuple[int, ...]) -> tuple[Matrix, ...]:
    """Lower factors of the Kronecker approximation of a second moment, padded to fill the modes.

    Padded inputs are given a share of the mean variance, so that they can be whitened.
    """
    variance, total = second.variance(), math.prod(sizes)
    padding = total - len(variance)
    if not padding:
        return tuple(lower_factor(moment) for moment in second.marginals(sizes))
    values, filled = second.values, _PADDED_VARIANCE * variance.mean()
    if is_root(values):
        values, ridge = np.pad(values, ((0, 0), (0, padding))), max(second.ridge, 1e-9 * filled)
        whole = SecondMoment(values, ridge)
    else:
        whole = SecondMoment(padded(values, (total, total)), second.ridge)
        np.fill_diagonal(whole.values[len(variance) :, len(variance) :], filled)
    return tuple(lower_factor(moment) for moment in whole.marginals(sizes))


def _inverses(factors: Sequence[Matrix]) -> list[Matrix]:
    return [scipy.linalg.solve_triangular(L, np.eye(len(L)), lower=True) for L in factors]


def padded(matrix: Matrix, shape: tuple[int, int]) -> Matrix:
    if matrix.shape == shape:
        return matrix
    return np.pad(
        matrix, [(0, size - have) for size, have in zip(shape, matrix.shape, strict=True)]
    )


def _times_kronecker(matrix: Matrix, factors: Sequence[Matrix]) -> Matrix:
    """`matrix @ kron(factors)`, for a matrix `(q, d_1 ... d_k)`."""
    product = matrix.reshape(len(matrix), *(len(factor) for factor in factors))
    for axis, factor in enumerate(factors, start=1):
        rotated = np.tensordot(product, factor.astype(matrix.dtype), (axis, 0))
        product = np.moveaxis(rotated, -1, axis)
    return np.ascontiguousarray(product.reshape(len(matrix), -1))
