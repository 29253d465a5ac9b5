"""Kernels with some modes encoded, and the regression that decodes them: see `bottleneck_chain`.

Rows of an encoded kernel are ordered by channel, then by kernel position. So truncating channels
leaves a leading block, and one Cholesky decomposition of the encoded `S` serves every truncation:
its leading blocks are theirs. Joining the next axis to the channels then leaves the order as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from lrf_core.methods.base import Matrix, lower_factor
from lrf_core.methods.truncation_error import Sums


@dataclass(frozen=True)
class Stage:
    """A kernel some of whose modes are encoded, in the basis of the next encoder.

    Rows are ordered by channel, leading ones first, then by position in the windows that are left;
    there are `N = channels * window` of them.

    Attributes:
        window: kernel positions of the convolutions still to come.
        second: second moment of the encoded inputs with its ridge, `(N, N)`.
        target: `second` times the kernel, `(N, c)`.
        kernel: the layer's own kernel, encoded, `(N, c)`.
        rows: the sampled rows, encoded, `(N, m)`.
        encoders: what has led here, one matrix for each rank, the last one not truncated.
    """

    window: int
    second: Matrix
    target: Matrix
    kernel: Matrix
    rows: Matrix
    encoders: tuple[Matrix, ...]

    @property
    def width(self) -> int:
        """Channels there are."""
        return len(self.second) // self.window

    @cached_property
    def _lower(self) -> Matrix:
        return lower_factor(self.second)

    @cached_property
    def solved_target(self) -> Matrix:
        """`L^-1 target`, `(N, c)`; its leading rows are those of a truncation."""
        return _forward(self._lower, self.target)

    @cached_property
    def solved_rows(self) -> Matrix:
        """`L^-1 rows`, `(N, m)`."""
        return _forward(self._lower, self.rows)

    def backward(self, matrix: Matrix) -> Matrix:
        """`L_p^-T matrix`, for the leading block of as many rows as the matrix has."""
        size = len(matrix)
        return np.asarray(
            scipy.linalg.solve_triangular(self._lower[:size, :size], matrix, lower=True, trans="T")
        )

    def encoded(self, rank: int, fitted: Matrix, axis: int, widest: int) -> Stage:
        """Truncated to `rank` channels, with the first axis of the window joined to them.

        Args:
            fitted: the least-squares kernel of the truncation, `(rank * window, c)`.
            axis: size of that axis.
            widest: channels to keep in the basis of the next encoder.
        """
        size = rank * self.window
        encoders = (*self.encoders[:-1], self.encoders[-1][:, :rank])
        return in_basis(
            self.window // axis,
            self.second[:size, :size],
            fitted,
            (self.target[:size], self.kernel[:size], self.rows[:size]),
            encoders,
            widest,
        )


def in_basis(
    window: int,
    second: Matrix,
    fitted: Matrix,
    sides: tuple[Matrix, Matrix, Matrix],
    encoders: tuple[Matrix, ...],
    widest: int,
) -> Stage:
    """In the basis of the next encoder, leading directions first; truncation then is a block."""
    E = _encoder(fitted.reshape(-1, window, fitted.shape[-1]), second)[:, :widest]
    target, kernel, rows = (_encoded(side, E) for side in sides)
    return Stage(window, _encoded(_encoded(second, E).T, E), target, kernel, rows, (*encoders, E))


@dataclass(frozen=True)
class Fit:
    """The reduced-rank regression behind one choice of encoders; `p` rows, `c` outputs.

    `W' = coded_r decoder_r` in the encoded space, for every r.

    Attributes:
        stage: what it was fitted to, not truncated.
        directions: output weight times the leading directions, `G V`, `(c, c)`.
        decoder: `V^T G^-1`, `(c, c)`.
        values: weighted second moment that each direction explains, `(c,)`.
        size: `p`.
    """

    stage: Stage
    directions: Matrix
    decoder: Matrix
    values: Sums
    size: int

    @cached_property
    def coded(self) -> Matrix:
        """Fitted kernel times leading directions, `(p, c)`; its first r columns count."""
        return self.stage.backward(self.stage.solved_target[: self.size] @ self.directions)

    @cached_property
    def coded_rows(self) -> Matrix:
        """The sampled rows through the coded directions, `(m, c)`."""
        solved = self.stage.solved_target[: self.size] @ self.directions
        return np.asarray(self.stage.solved_rows[: self.size].T @ solved)

    def cross(self, ridge: float) -> Matrix:
        """`W^T S` times the coded directions, `(c, c)`, without the ridge."""
        target, kernel = self.stage.target[: self.size], self.stage.kernel[: self.size]
        return np.asarray((target - ridge * kernel).T @ self.coded)

    def gram(self, ridge: float) -> Matrix:
        """Second moment of the coded directions, `(c, c)`, without the ridge."""
        return np.asarray(np.diag(self.values) - ridge * (self.coded.T @ self.coded))


def _forward(lower: Matrix, matrix: Matrix) -> Matrix:
    return np.asarray(scipy.linalg.solve_triangular(lower, matrix, lower=True))


def _encoder(kernel: Matrix, second: Matrix) -> Matrix:
    """Orthonormal `(channels, channels)`, leading columns first, for a kernel `(channels, k, c)`.

    From the singular vectors of the kernel unfolded along its channels, whitened by a separable
    approximation of `second`, `(channels * k, channels * k)`.
    """
    channels, window, _ = kernel.shape
    blocks = second.reshape(channels, window, channels, window)
    L_channel = lower_factor(np.einsum("akbk->ab", blocks))
    L_window = lower_factor(np.einsum("akal->kl", blocks))
    whitened = (L_channel.T @ kernel.reshape(channels, -1)).reshape(kernel.shape)
    unfolded = np.matmul(L_window.T, whitened).reshape(channels, -1)
    _, U = np.linalg.eigh(unfolded @ unfolded.T)
    encoder, _ = np.linalg.qr(scipy.linalg.solve_triangular(L_channel.T, U[:, ::-1]))
    return np.asarray(encoder)


def _encoded(matrix: Matrix, encoder: Matrix) -> Matrix:
    """`(encoder kron I)^T @ matrix`, for a matrix of rows by channel, then position."""
    by_channel = matrix.reshape(encoder.shape[0], -1)
    return np.asarray((encoder.T @ by_channel).reshape(-1, matrix.shape[1]))
