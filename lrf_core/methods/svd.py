"""Truncated singular value decomposition, for dense layers and 1x1 convolutions.

Chain: (n > r), (r > c). With `S = L L^T` and the output weight `F = G G^T`, the rank-r kernel with
the least `tr(F D^T S D)`, `D = W - W'`, is `L^-T [L^T W G]_r G^-1` (Eckart-Young in the whitened
space), so no refit can improve it.
"""

from __future__ import annotations

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
    times_second,
)


class SvdForm(Form):
    """Ranks: `(r,)`."""

    method = "svd"

    @property
    def full_ranks(self) -> Ranks:
        return (min(self.geometry.inputs, self.geometry.outputs),)

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        # A single mode is cheap to sweep finely.
        return [(rank,) for rank in rank_grid(self.full_ranks[0], 4 * per_mode)]

    def cost(self, ranks: Ranks) -> Cost:
        geometry = self.geometry
        weights = ranks[0] * (geometry.inputs + geometry.outputs)
        # A strided 1x1 convolution drops positions in the first layer already.
        return Cost(params=weights + geometry.bias_params, macs=weights * geometry.positions)

    def sweep(self, kernel: Matrix, moments: Moments) -> SvdSweep:
        return SvdSweep(self.geometry, kernel, moments)

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        if isinstance(layer, keras.layers.Dense):
            return [
                keras.layers.Dense(ranks[0], **first_or_middle(layer, "svd_in")),
                keras.layers.Dense(layer.units, **last(layer, "svd_out")),
            ]
        strided = {**first_or_middle(layer, "svd_in"), "strides": layer.strides}
        return [
            pointwise(layer, ranks[0], strided.items()),
            pointwise(layer, layer.filters, last(layer, "svd_out").items()),
        ]


class SvdSweep(Sweep):
    """Nested: the first r columns of one decomposition are the decomposition of rank r."""

    def __init__(self, geometry: Geometry, kernel: Matrix, moments: Moments) -> None:
        super().__init__(geometry, kernel, moments)
        self._spatial = geometry.kernel_shape[:-2]
        L = lower_factor(moments.regularized_second())
        G = lower_factor(moments.output_weight(kernel.shape[1]))
        whitened = (L[:, None] * kernel if L.ndim == 1 else L.T @ kernel) @ G
        U, values, Vt = scipy.linalg.svd(whitened, full_matrices=False)
        encoder = U / L[:, None] if L.ndim == 1 else scipy.linalg.solve_triangular(L.T, U)
        # Orthonormal encoders keep both factors well scaled, for float32 and for fine-tuning;
        # QR leaves the span of the first r columns as it is, so the sweep stays nested.
        self._encoder, R = np.linalg.qr(encoder)
        decoder = scipy.linalg.solve_triangular(G.T, (values[:, None] * Vt).T).T
        self._mixing, self._decoder = R, decoder
        SW = times_second(moments.second, kernel)
        self._cross = SW.T @ self._encoder
        self._gram = self._encoder.T @ times_second(moments.second, self._encoder)
        self._encoded_rows = moments.rows @ self._encoder

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
        rank = ranks[0]
        decoded = self._decoded(rank)
        return (
            self._cross[:, :rank] @ decoded,
            decoded.T @ self._gram[:rank, :rank] @ decoded,
        )

    def outputs(self, ranks: Ranks) -> Matrix:
        return np.asarray(self._encoded_rows[:, : ranks[0]] @ self._decoded(ranks[0]))


def _forms(geometry: Geometry) -> list[Form]:
    applies = geometry.window == 1 and min(geometry.inputs, geometry.outputs) > 1
    return [SvdForm(geometry)] if applies else []


METHOD = Method(SvdForm.method, _forms)
