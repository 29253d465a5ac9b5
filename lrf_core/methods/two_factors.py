"""Two layers through r channels, for dense layers and 1x1 convolutions: what svd and qr share.

Chain: (n > r), (r > c). With `S = L L^T` and the output weight `F = G G^T`, the error
`tr(F D^T S D)`, `D = W - W'`, is the squared norm of `V - V'`, with `V = L^T W G` the whitened
kernel. A decomposition `V = (V Z) T` has the columns of `V Z` orthonormal, leading ones first; at
rank r the first r of them are kept, which is the least-squares fit for their span. So
`W' = (W G Z_r) (T_r G^-1)`, and `Z` and `T` follow from `V^T V = G^T W^T S W G` alone: however many
inputs a layer has, the arithmetic is that of a `(c, c)` matrix. Forming it squares the condition
number, which leaves half of float64's digits: more than the float32 weights have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
import scipy.linalg

from lrf_core.artifacts import Cost
from lrf_core.methods.base import (
    Decomposition,
    Geometry,
    Layout,
    Matrix,
    Method,
    Moments,
    Ranks,
    first_or_middle,
    last,
    lower_factor,
    pointwise,
    rank_grid,
)
from lrf_core.methods.truncation_error import Sums, explained_by_rank

# Outputs from which the arithmetic is in float32.
_MANY_OUTPUTS = 2048

# From `V^T V`, `(c, c)`, and the most columns wanted, k, to `Z`, `(c, k)`, and `T`, `(k, c)`.
Directions = Callable[[Matrix, int], tuple[Matrix, Matrix]]


def two_factor_method(name: str, directions: Directions, **attributes: Any) -> Method:
    """The method of this name, for every layer that one matrix describes.

    Args:
        directions: see `Directions`.
        attributes: of the `Method`.
    """

    def layouts(geometry: Geometry) -> list[Layout]:
        applies = geometry.window == 1 and min(geometry.inputs, geometry.outputs) > 1
        return [TwoFactorLayout(geometry, name, directions)] if applies else []

    return Method(name, layouts, **attributes)


class TwoFactorLayout(Layout):
    """Ranks: `(r,)`."""

    def __init__(self, geometry: Geometry, method: str, directions: Directions) -> None:
        super().__init__(geometry)
        self.method = method
        self._directions = directions

    @property
    def full_ranks(self) -> Ranks:
        return (min(self.geometry.inputs, self.geometry.outputs),)

    @property
    def highest(self) -> int:
        """Of many outputs a quarter of the full rank at most is offered, to save time."""
        full = self.full_ranks[0]
        return full // 4 if full >= _MANY_OUTPUTS else full

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        # A single mode is cheap to sweep finely.
        grid = rank_grid(self.highest, 4 * per_mode)
        # Where the steps are wide, small ranks are where the error changes most.
        small = [2**exponent for exponent in range((grid[0] - 1).bit_length())]
        return [(rank,) for rank in (*small, *grid)]

    def cost(self, ranks: Ranks) -> Cost:
        geometry = self.geometry
        weights = ranks[0] * (geometry.inputs + geometry.outputs)
        # A strided 1x1 convolution drops positions in the first layer already.
        return Cost(params=weights + geometry.bias_params, macs=weights * geometry.positions)

    def decompose(self, kernel: Matrix, moments: Moments) -> TwoFactorDecomposition:
        return TwoFactorDecomposition(self, kernel, moments, self._directions)

    def factors_of_weights(self, kernel: Matrix, ranks: Ranks) -> list[Matrix]:
        (rank,) = ranks
        mixing, decoder = self._directions(kernel.T @ kernel, rank)
        missing = rank - mixing.shape[1]  # of a kernel of lower rank
        spatial = self.geometry.kernel_shape[:-2]
        return [
            np.pad(kernel @ mixing, ((0, 0), (0, missing))).reshape(*spatial, -1, rank),
            np.pad(decoder[:rank], ((0, missing), (0, 0))).reshape(*spatial, rank, -1),
        ]

    def product(self, factors: list[Matrix], ranks: Ranks) -> Matrix:
        encoder, decoder = factors
        return encoder.reshape(-1, *ranks) @ decoder.reshape(*ranks, -1)

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


class TwoFactorDecomposition(Decomposition):
    """Nested: each rank adds one column to the basis of the rank before."""

    def __init__(
        self,
        layout: TwoFactorLayout,
        kernel: Matrix,
        moments: Moments,
        directions: Directions,
    ) -> None:
        super().__init__(layout.geometry, kernel, moments)
        self._layout = layout
        self._directions = directions
        self._spatial = layout.geometry.kernel_shape[:-2]
        self._last_columns: tuple[int, _Columns] | None = None

    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        return partial(TwoFactorDecomposition, self._layout, directions=self._directions)

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        mixing, decoder = self._factors_of(ranks)
        return np.asarray(self.kernel @ (mixing @ decoder))

    def factors(self, ranks: Ranks) -> list[Matrix]:
        rank = ranks[0]
        mixing, decoder = self._factors_of(ranks)
        # Orthonormal encoders keep both factors well scaled, for float32 and for fine-tuning.
        encoder, rotation = np.linalg.qr(self.kernel @ mixing)
        decoder = rotation @ decoder
        missing = rank - encoder.shape[1]  # of a kernel of lower rank than was asked for
        return [
            np.pad(encoder, ((0, 0), (0, missing))).reshape(*self._spatial, -1, rank),
            np.pad(decoder, ((0, missing), (0, 0))).reshape(*self._spatial, rank, -1),
        ]

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        mixing, decoder = self._factors_of(ranks)
        kept = mixing @ decoder
        cross = self._second @ kept
        return cross, kept.T @ cross

    def explained_energy(self, ranks: Ranks) -> tuple[float, float]:
        plain, weighted = self._columns(self._most(ranks)).explained_energy
        rank = min(ranks[0], len(plain) - 1)
        return float(plain[rank]), float(weighted[rank])

    def outputs(self, ranks: Ranks) -> Matrix:
        columns, rank = self._columns(self._most(ranks)), ranks[0]
        return np.asarray(columns.rows[:, :rank] @ columns.decoder[:rank])

    def _factors_of(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        """`G Z_r`, `(c, r)`, and `T_r G^-1`, `(r, c)`."""
        columns, rank = self._columns(self._most(ranks)), ranks[0]
        return columns.mixing[:, :rank], columns.decoder[:rank]

    def _most(self, ranks: Ranks) -> int:
        """Columns to compute: as many as are offered, or all."""
        n, c = self.kernel.shape
        fewer = min(n * c // (n + c), self._layout.highest)
        return int(fewer if ranks[0] <= fewer else min(n, c))

    @cached_property
    def _second(self) -> Matrix:
        return self._precise(self.moments.quadratic(self.kernel))

    def _precise(self, matrix: Matrix) -> Matrix:
        """In float32 where there are many outputs: everything here grows with their cube."""
        wide = self.kernel.shape[1] >= _MANY_OUTPUTS
        return matrix.astype(np.float32) if wide else matrix

    def _columns(self, count: int) -> _Columns:
        if self._last_columns is None or self._last_columns[0] != count:
            self._last_columns = count, self._columns_of(count)
        return self._last_columns[1]

    def _columns_of(self, count: int) -> _Columns:
        kernel, moments = self.kernel, self.moments
        G = self._precise(lower_factor(moments.output_weight(kernel.shape[1])))
        own = self._precise(kernel)
        regularized = self._second + np.asarray(moments.ridge, own.dtype) * (own.T @ own)
        Z, T = self._directions(G.T @ regularized @ G, count)
        mixing, decoder = G @ Z, scipy.linalg.solve_triangular(G.T, T.T).T
        cross = self._second @ mixing
        gradient = moments.gradient
        sums = explained_by_rank(
            cross,
            mixing.T @ cross,
            decoder,
            None if gradient is None else self._precise(gradient),
        )
        rows = moments.rows.astype(own.dtype) @ own
        return _Columns(mixing, decoder, rows @ mixing, sums)


@dataclass(frozen=True)
class _Columns:
    """The k leading rank-one terms.

    Attributes:
        mixing: `G Z`, `(c, k)`.
        decoder: `T G^-1`, `(k, c)`.
        rows: the sampled rows through the first layer, `(m, k)`.
        explained: see `truncation_error`.
    """

    mixing: Matrix
    decoder: Matrix
    rows: Matrix
    explained_energy: tuple[Sums, Sums]
