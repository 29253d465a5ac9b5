"""Two layers through r channels, for dense layers and 1x1 convolutions: what svd and qr share.

Chain: (n > r), (r > c). With `S = L L^T` and the output weight `F = G G^T`, the error
`tr(F D^T S D)`, `D = W - W'`, is the squared norm of `V - V'`, with `V = L^T W G` the whitened
kernel. A decomposition gives an orthonormal basis `B` of the columns of `V`; at rank r the whitened
kernel is projected on the first r columns of `B`. That is the least-squares fit for the span they
encode, so no refit of the second layer can improve it.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import scipy.linalg

from lrf_core.artifacts import Cost
from lrf_core.methods.base import (
    Form,
    Geometry,
    Matrix,
    Method,
    Moments,
    Ranks,
    Sweep,
    first_or_middle,
    last,
    lower_factor,
    pointwise,
    rank_grid,
)

# From a whitened kernel `(n, c)` to a basis `(n, k)`, orthonormal columns, leading ones first, and
# the kernel in that basis, `(k, c)`; `k = min(n, c)`.
Decomposition = Callable[[Matrix], tuple[Matrix, Matrix]]


def two_factor_method(name: str, decomposition: Decomposition) -> Method:
    """The method of this name, for every layer that one matrix describes."""

    def forms(geometry: Geometry) -> list[Form]:
        applies = geometry.window == 1 and min(geometry.inputs, geometry.outputs) > 1
        return [TwoFactorForm(geometry, name, decomposition)] if applies else []

    return Method(name, forms)


class TwoFactorForm(Form):
    """Ranks: `(r,)`."""

    def __init__(self, geometry: Geometry, method: str, decomposition: Decomposition) -> None:
        super().__init__(geometry)
        self.method = method
        self._decomposition = decomposition

    @property
    def full_ranks(self) -> Ranks:
        return (min(self.geometry.inputs, self.geometry.outputs),)

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        # A single mode is cheap to sweep finely.
        grid = rank_grid(self.full_ranks[0], 4 * per_mode)
        # Where the steps are wide, small ranks are where the error changes most.
        small = [2**exponent for exponent in range((grid[0] - 1).bit_length())]
        return [(rank,) for rank in (*small, *grid)]

    def cost(self, ranks: Ranks) -> Cost:
        geometry = self.geometry
        weights = ranks[0] * (geometry.inputs + geometry.outputs)
        # A strided 1x1 convolution drops positions in the first layer already.
        return Cost(params=weights + geometry.bias_params, macs=weights * geometry.positions)

    def sweep(self, kernel: Matrix, moments: Moments) -> TwoFactorSweep:
        return TwoFactorSweep(self.geometry, kernel, moments, self._decomposition)

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        encoder = first_or_middle(layer, f"{self.method}_in")
        decoder = last(layer, f"{self.method}_out")
        if isinstance(layer, keras.layers.Dense):
            return [
                keras.layers.Dense(ranks[0], **encoder),
                keras.layers.Dense(layer.units, **decoder),
            ]
        strided = {**encoder, "strides": layer.strides}
        return [
            pointwise(layer, ranks[0], strided.items()),
            pointwise(layer, layer.filters, decoder.items()),
        ]


class TwoFactorSweep(Sweep):
    """Nested: each rank adds one column to the basis of the rank before."""

    def __init__(
        self, geometry: Geometry, kernel: Matrix, moments: Moments, decomposition: Decomposition
    ) -> None:
        super().__init__(geometry, kernel, moments)
        self._decomposition = decomposition
        self._spatial = geometry.kernel_shape[:-2]
        second = moments.regularized_second()
        self._ridge = float((second - moments.second).flat[0])
        L = lower_factor(second)
        G = lower_factor(moments.output_weight(kernel.shape[1]))
        whitened = (L[:, None] * kernel if L.ndim == 1 else L.T @ kernel) @ G
        basis, coordinates = decomposition(whitened)
        encoder = basis / L[:, None] if L.ndim == 1 else scipy.linalg.solve_triangular(L.T, basis)
        # Orthonormal encoders keep both factors well scaled, for float32 and for fine-tuning;
        # QR leaves the span of the first r columns as it is, so the sweep stays nested.
        self._encoder, self._mixing = np.linalg.qr(encoder)
        self._decoder = scipy.linalg.solve_triangular(G.T, coordinates.T).T
        self._overlap = kernel.T @ self._encoder
        self._encoded_rows = moments.rows @ self._encoder

    def again(self, kernel: Matrix, moments: Moments, ranks: Ranks) -> TwoFactorSweep:
        return TwoFactorSweep(self.geometry, kernel, moments, self._decomposition)

    def _decoded(self, rank: int) -> Matrix:
        return np.asarray(self._mixing[:rank, :rank] @ self._decoder[:rank])

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        return np.asarray(self._encoder[:, : ranks[0]] @ self._decoded(ranks[0]))

    def factors(self, ranks: Ranks) -> list[Matrix]:
        rank = ranks[0]
        return [
            self._encoder[:, :rank].reshape(*self._spatial, -1, rank),
            self._decoded(rank).reshape(*self._spatial, rank, -1),
        ]

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        # L^T W' is the part of L^T W in the span of the basis, so with the ridge in S both moments
        # are one.
        rank, decoded = ranks[0], self._decoded(ranks[0])
        regularized = self._decoder[:rank].T @ self._decoder[:rank]
        return (
            regularized - self._ridge * self._overlap[:, :rank] @ decoded,
            regularized - self._ridge * decoded.T @ decoded,
        )

    def outputs(self, ranks: Ranks) -> Matrix:
        return np.asarray(self._encoded_rows[:, : ranks[0]] @ self._decoded(ranks[0]))
