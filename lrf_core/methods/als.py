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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.sparse.linalg import LinearOperator, cg

from lrf_core.methods.moments import Matrix, SecondMoment

# Least ridge of every solve, relative to the mean of the normal matrix's diagonal; what float32
# needs is more.
RIDGE = 1e-6
_RIDGE_OF_SINGLE = 1e-5
# What the ridge is multiplied by where it was too small.
_STRONGER = 10.0
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

    def dictionary_gram(self) -> Matrix:
        """`D^T D`, `(R, R)`."""
        return reduce(np.multiply, (X.T @ X for X in self.inner))

    def norm_ratio(self) -> float:
        """Summed squared norms of the components over the squared norm of their sum.

        1 for orthogonal components; large where they cancel each other.
        """
        grams = self.dictionary_gram() * (self.outer.T @ self.outer)
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

    def of_type(self, dtype: npt.DTypeLike) -> Components:
        """In another precision."""
        return Components(tuple(X.astype(dtype) for X in self.inner), self.outer.astype(dtype))

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
    """Column-wise Kronecker product, `(prod(d_j), R)`, the first factor's index slowest.

    The one of tensorly gives the same bits and takes 15 times as long: it is in the inner loop.
    """

    def product(left: Matrix, right: Matrix) -> Matrix:
        return np.asarray((left[:, None, :] * right[None]).reshape(-1, left.shape[1]))

    return reduce(product, factors)


def alternate(tensor: Matrix, start: Components, sweeps: int, ridge: float = RIDGE) -> Components:
    """Plain alternating least squares: minimise `|T - D Y^T|^2`, from `start`.

    Args:
        tensor: `(d_1, ..., d_m, c)`; its precision is that of the arithmetic.
        sweeps: times that every factor is solved for.
        ridge: weight of the components' squared norms, relative.
    """
    sizes, outputs = tensor.shape[:-1], tensor.shape[-1]
    unfolded = tensor.reshape(-1, outputs)
    found = start.of_type(tensor.dtype)
    for _ in range(sweeps):
        found = Components(found.inner, _outer(unfolded, found.inner, ridge)).normalized()
        coded = (unfolded @ found.outer).reshape(*sizes, found.rank)
        inner = list(found.inner)
        for mode in range(len(inner)):
            gram = _gram_without(inner, mode) * (found.outer.T @ found.outer)
            inner[mode] = _solved(gram, _contracted(coded, inner, mode), ridge)
        found = Components(tuple(inner), found.outer).normalized()
    return Components(found.inner, _outer(unfolded, found.inner, ridge))


@dataclass(frozen=True)
class Solved:
    """Components whose outer factor is the least-squares fit to the others.

    Attributes:
        gram: `D^T S D`, `(R, R)`, with the ridge that `S` has.
        projected: `D^T S V`, `(R, c)`.
    """

    components: Components
    gram: Matrix
    projected: Matrix

    def error(self) -> float:
        """`tr((V - D Y^T)^T S (V - D Y^T))`, up to a constant."""
        outer = self.components.outer
        return float(np.vdot(outer.T @ outer, self.gram) - 2 * np.vdot(outer.T, self.projected))


def improve(
    second: SecondMoment, target: Matrix, start: Components, sweeps: int, ridge: float = RIDGE
) -> Solved:
    """Minimise the output error `tr((V - D Y^T)^T S (V - D Y^T))` further, from `start`.

    The outer factor is solved for exactly; the normal equations of an inner one may have thousands
    of unknowns, so a few steps of conjugate gradients are taken, preconditioned by a Kronecker
    approximation of `S`. Every step lowers the error.

    Args:
        second: `S`, of `n` inputs.
        target: `S V`, `(n, c)`.
        sweeps: times that every factor is improved; 0 solves for the outer factor only.
    """
    found = outer_fit(second, target, start.normalized(), ridge)
    if not sweeps:
        return found
    marginals = second.marginals([X.shape[0] for X in start.inner])
    # The steps are approximate anyway: single precision makes them twice as fast.
    single = second.single()
    for _ in range(sweeps):
        unit = found.components.normalized()
        inner = list(unit.inner)
        for mode in reversed(range(len(inner))):
            inner[mode] = _descended(single, target, inner, unit.outer, mode, marginals)
        moved = Components(tuple(inner), unit.outer).normalized()
        found = outer_fit(second, target, moved, ridge)
    return found


def outer_fit(
    second: SecondMoment, target: Matrix, start: Components, ridge: float = RIDGE
) -> Solved:
    """The outer factor `(c, R)` with the least output error, by least squares on `S`."""
    given = solved_as_is(second, target, start)
    fitted = Components(start.inner, _solved(given.gram, given.projected.T, ridge))
    return replace(given, components=fitted)


def solved_as_is(second: SecondMoment, target: Matrix, components: Components) -> Solved:
    """What `outer_fit` tells, for components whose outer factor stays as it is."""
    D = components.dictionary()
    return Solved(components, second.gram(D), D.T @ target)


def _gram_without(factors: Sequence[Matrix], mode: int) -> Matrix:
    """Elementwise product of the factors' Gram matrices, but one."""
    rank = factors[0].shape[1]
    grams = (X.T @ X for index, X in enumerate(factors) if index != mode)
    return reduce(np.multiply, grams, np.ones((rank, rank), factors[0].dtype))


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
    mean = max(float(np.trace(gram)) / rank, 1e-30)
    least = ridge if gram.dtype == np.float64 else max(ridge, _RIDGE_OF_SINGLE)
    try:
        factor = scipy.linalg.cho_factor(gram + np.eye(rank, dtype=gram.dtype) * (least * mean))
    except scipy.linalg.LinAlgError:
        # Rounding has left the smallest eigenvalues below zero.
        return _solved(gram, right, _STRONGER * least)
    return np.asarray(scipy.linalg.cho_solve(factor, right.T).T)


def _descended(
    second: SecondMoment,
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
        coded = second.times(khatri_rao(replaced).astype(np.float32)) @ outer_gram
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
