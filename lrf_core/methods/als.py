"""Canonical polyadic (CP) decomposition by alternating least squares: pure arithmetic on arrays.

A tensor `T` of shape `(d_1, ..., d_m, c)` is approximated by `R` components, columns of factors
`X_1 (d_1, R), ..., X_m (d_m, R)` and `Y (c, R)`. Unfolded in row-major order `T` is `(n, c)`; its
approximation is `D Y^T`, with `D` the Khatri-Rao product of the `X`.

References:
    Kolda, Bader, "Tensor Decompositions and Applications" (2009), section 3.4.
    de Silva, Lim, "Tensor rank and the ill-posedness of the best low-rank approximation problem"
    (2008), on degeneracy: components that grow without bound and cancel each other.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg

from lrf_core.methods.base import Matrix, times_second

# Least ridge of every solve, relative to the mean of the normal matrix's diagonal.
RIDGE = 1e-6
# Steps of conjugate gradients per factor: the sums are only improved, the next sweep goes on.
_GRADIENT_STEPS = 4


@dataclass(frozen=True)
class Components:
    """Factors of a CP decomposition.

    Attributes:
        inner: `X_1, ..., X_m`, each `(d_j, R)`.
        outer: `Y`, `(c, R)`.
    """

    inner: tuple[Matrix, ...]
    outer: Matrix

    @property
    def rank(self) -> int:
        return int(self.outer.shape[1])

    def dictionary(self) -> Matrix:
        """`D`, `(n, R)`."""
        return khatri_rao(self.inner)

    def norm_ratio(self) -> float:
        """Summed squared norms of the components over the squared norm of their sum.

        1 for orthogonal components; large where they cancel each other.
        """
        grams = reduce(np.multiply, (X.T @ X for X in self.inner)) * (self.outer.T @ self.outer)
        return float(np.trace(grams) / max(grams.sum(), 1e-12 * np.trace(grams), 1e-300))

    def normalized(self) -> Components:
        """Unit columns in every inner factor, the norms in the outer one."""
        norms = [np.linalg.norm(X, axis=0) for X in self.inner]
        safe = [np.where(norm > 0, norm, 1.0) for norm in norms]
        inner = tuple(X / norm for X, norm in zip(self.inner, safe, strict=True))
        return Components(inner, self.outer * reduce(np.multiply, norms))

    def balanced(self) -> Components:
        """The same norm in every factor of a component, which keeps gradients alike."""
        unit = self.normalized()
        norms = np.linalg.norm(unit.outer, axis=0)
        norms = np.where(norms > 0, norms, 1.0)
        each = norms ** (1 / (len(unit.inner) + 1))
        return Components(tuple(X * each for X in unit.inner), unit.outer * (each / norms))

    def extended(self, rank: int, rng: np.random.Generator) -> Components:
        """Random components added, with zeros in the outer factor, up to `rank` of them."""
        more = rank - self.rank
        inner = tuple(np.hstack([X, rng.normal(size=(len(X), more))]) for X in self.inner)
        return Components(inner, np.pad(self.outer, ((0, 0), (0, more))))


def residual(tensor: Matrix, components: Components) -> float:
    """`|T - D Y^T|^2`."""
    unfolded = tensor.reshape(-1, tensor.shape[-1])
    return float(np.sum((unfolded - components.dictionary() @ components.outer.T) ** 2))


def khatri_rao(factors: Sequence[Matrix]) -> Matrix:
    """Column-wise Kronecker product, `(prod(d_j), R)`, the first factor's index slowest."""

    def product(left: Matrix, right: Matrix) -> Matrix:
        return np.asarray((left[:, None, :] * right[None]).reshape(-1, left.shape[1]))

    return reduce(product, factors)


def alternate(tensor: Matrix, start: Components, sweeps: int, ridge: float = RIDGE) -> Components:
    """Plain alternating least squares: minimise `|T - D Y^T|^2`, from `start`.

    Args:
        tensor: `(d_1, ..., d_m, c)`.
        sweeps: times that every factor is solved for.
        ridge: weight of the components' squared norms, relative.
    """
    sizes, outputs = tensor.shape[:-1], tensor.shape[-1]
    unfolded = tensor.reshape(-1, outputs)
    found = start
    for _ in range(sweeps):
        found = Components(found.inner, _outer(unfolded, found.inner, ridge)).normalized()
        coded = (unfolded @ found.outer).reshape(*sizes, found.rank)
        inner = list(found.inner)
        for mode in range(len(inner)):
            gram = _gram_without(inner, mode) * (found.outer.T @ found.outer)
            inner[mode] = _solved(gram, _contracted(coded, inner, mode), ridge)
        found = Components(tuple(inner), found.outer).normalized()
    return Components(found.inner, _outer(unfolded, found.inner, ridge))


def improve(
    second: Matrix, target: Matrix, start: Components, sweeps: int, ridge: float = RIDGE
) -> Components:
    """Minimise the output error `tr((V - D Y^T)^T S (V - D Y^T))` further, from `start`.

    The outer factor is solved for exactly; the normal equations of an inner one may have thousands
    of unknowns, so a few steps of conjugate gradients are taken, preconditioned by a Kronecker
    approximation of `S`. Every step lowers the error.

    Args:
        second: `S`, `(n, n)`, or its diagonal `(n,)`.
        target: `S V`, `(n, c)`.
    """
    sizes = tuple(X.shape[0] for X in start.inner)
    marginals = marginal_moments(second, sizes)
    # The steps are approximate anyway: single precision makes them twice as fast.
    single = second.astype(np.float32)
    found = Components(start.inner, outer_fit(second, target, start.inner, ridge)).normalized()
    for _ in range(sweeps):
        inner = list(found.inner)
        for mode in reversed(range(len(inner))):
            inner[mode] = _descended(single, target, inner, found.outer, mode, marginals)
        unit = Components(tuple(inner), found.outer).normalized()
        found = Components(unit.inner, outer_fit(second, target, unit.inner, ridge))
    return found


def outer_fit(
    second: Matrix, target: Matrix, inner: Sequence[Matrix], ridge: float = RIDGE
) -> Matrix:
    """The outer factor `(c, R)` with the least output error, by least squares on `S`."""
    D = khatri_rao(inner)
    return _solved(D.T @ times_second(second, D), (D.T @ target).T, ridge)


def marginal_moments(second: Matrix, sizes: Sequence[int]) -> list[Matrix]:
    """Matrices `M_j (d_j, d_j)` whose Kronecker product approximates `S`.

    Each is `S` summed over the diagonals of all other modes; the scale is in the last.
    """
    marginals = []
    for mode in range(len(sizes)):
        if second.ndim == 1:
            others = tuple(axis for axis in range(len(sizes)) if axis != mode)
            marginals.append(np.diag(second.reshape(sizes).sum(axis=others)))
            continue
        rows = string.ascii_lowercase[: len(sizes)]
        columns = rows.replace(rows[mode], "Z")
        tensor = second.reshape(*sizes, *sizes)
        marginals.append(np.einsum(f"{rows}{columns}->{rows[mode]}Z", tensor))
    scaled = [M * (len(M) / np.trace(M)) for M in marginals[:-1]]
    return [*scaled, marginals[-1] / math.prod(sizes[:-1])]


def _gram_without(factors: Sequence[Matrix], mode: int) -> Matrix:
    """Elementwise product of the factors' Gram matrices, but one."""
    rank = factors[0].shape[1]
    grams = (X.T @ X for index, X in enumerate(factors) if index != mode)
    return reduce(np.multiply, grams, np.ones((rank, rank)))


def _contracted(coded: Matrix, factors: Sequence[Matrix], mode: int) -> Matrix:
    """Contract `(d_1, ..., d_m, R)` with every factor but one, component by component."""
    result = coded
    for axis in reversed(range(len(factors))):
        if axis != mode:
            moved = np.moveaxis(result, axis, 0)
            result = np.einsum("a...r,ar->...r", moved, factors[axis])
    return np.asarray(result)


def _outer(unfolded: Matrix, inner: Sequence[Matrix], ridge: float) -> Matrix:
    gram = _gram_without(inner, -1)
    return _solved(gram, unfolded.T @ khatri_rao(inner), ridge)


def _solved(gram: Matrix, right: Matrix, ridge: float) -> Matrix:
    """`right @ (gram + ridge)^-1`; the ridge is relative to the mean of the diagonal."""
    rank = len(gram)
    mean = max(float(np.trace(gram)) / rank, 1e-300)
    factor = scipy.linalg.cho_factor(gram + ridge * mean * np.eye(rank))
    return np.asarray(scipy.linalg.cho_solve(factor, right.T).T)


def _descended(
    second: NDArray[np.float32],
    target: Matrix,
    inner: Sequence[Matrix],
    outer: Matrix,
    mode: int,
    marginals: Sequence[Matrix],
) -> Matrix:
    """One inner factor after a few preconditioned steps of conjugate gradients."""
    sizes = tuple(X.shape[0] for X in inner)
    outer_gram = outer.T @ outer
    rank = len(outer_gram)

    def normal(factor: Matrix) -> Matrix:
        replaced = [factor if index == mode else X for index, X in enumerate(inner)]
        coded = times_second(second, khatri_rao(replaced).astype(np.float32)) @ outer_gram
        return _contracted(coded.reshape(*sizes, rank), inner, mode)

    right = _contracted((target @ outer).reshape(*sizes, rank), inner, mode)
    weighted = (
        X.T @ M @ X
        for index, (X, M) in enumerate(zip(inner, marginals, strict=True))
        if index != mode
    )
    gram = reduce(np.multiply, weighted, outer_gram)
    left = np.linalg.inv(marginals[mode])
    right_inverse = _solved(gram, np.eye(rank), RIDGE)

    def precondition(residual: Matrix) -> Matrix:
        return np.asarray(left @ residual @ right_inverse)

    shape = inner[mode].shape

    def on_vectors(function: Callable[[Matrix], Matrix]) -> LinearOperator:
        size = math.prod(shape)
        return LinearOperator(
            (size, size), lambda vector: function(vector.reshape(shape)).ravel(), dtype=np.float64
        )

    solution, _ = cg(
        on_vectors(normal),
        right.ravel(),
        inner[mode].ravel(),
        maxiter=_GRADIENT_STEPS,
        M=on_vectors(precondition),
    )
    return np.asarray(solution.reshape(shape))
