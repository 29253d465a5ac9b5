"""Tucker decomposition over the two channel modes (Tucker-2), for Conv1D, Conv2D and Conv3D.

Chain: Conv 1x1 (Cin > r1), Conv k (r1 > r2; strides, padding, dilation), Conv 1x1 (r2 > Cout)
(Kim et al., arXiv 1511.06530). A mode at full rank needs no factor: its 1x1 convolution is left
out, which gives Tucker-1 on the other mode.

Factors are fitted to the feature map. The input factor comes from the singular vectors of the
kernel's input-channel unfolding, whitened by a separable approximation of `S` (kernel positions
times channels). Given that factor, the best core and output factor are a reduced-rank regression
(Izenman 1975): refit the kernel by least squares, then keep the leading eigenvectors of the fitted
outputs' second moment. That is exact, and nested in r2: one solve per r1 serves every r2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import keras
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

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


class TuckerForm(Form):
    """Ranks: `(r1, r2)`, of the input and the output channels."""

    method = "tucker"

    @property
    def full_ranks(self) -> Ranks:
        return self.geometry.inputs, self.geometry.outputs

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        return list(itertools.product(*(rank_grid(full, per_mode) for full in self.full_ranks)))

    def cost(self, ranks: Ranks) -> Cost:
        geometry = self.geometry
        r1, r2 = ranks
        encode = geometry.inputs * r1 if r1 < geometry.inputs else 0
        core = geometry.window * r1 * r2
        decode = r2 * geometry.outputs if r2 < geometry.outputs else 0
        return Cost(
            params=encode + core + decode + geometry.bias_params,
            macs=encode * geometry.input_positions + (core + decode) * geometry.positions,
        )

    def sweep(self, kernel: Matrix, moments: Moments) -> TuckerSweep:
        return TuckerSweep(self.geometry, kernel, moments)

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        r1, r2 = ranks
        inputs, outputs = layer.kernel.shape[-2], layer.filters
        settings = last if r2 == outputs else first_or_middle
        core = type(layer)(
            r2,
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
            **settings(layer, "tucker_core"),
        )
        chain = [core]
        if r1 < inputs:
            chain.insert(0, pointwise(layer, r1, first_or_middle(layer, "tucker_in").items()))
        if r2 < outputs:
            chain.append(pointwise(layer, outputs, last(layer, "tucker_out").items()))
        return chain


@dataclass(frozen=True)
class _Fit:
    """The reduced-rank regression for one r1. `k` is the kernel window, `c` the outputs.

    Attributes:
        coded: fitted core times leading directions, `(k * r1, c)`; its first r2 columns count.
        decoder: output factor, orthonormal columns, `(c, c)`; its first r2 columns count.
        cross: `W^T S W_fit`-side moments against the coded directions, `(c, c)`.
        gram: second moment of the coded directions, `(c, c)`.
        coded_rows: the sampled rows through the coded directions, `(m, c)`.
    """

    coded: Matrix
    decoder: Matrix
    mixing: Matrix
    cross: Matrix
    gram: Matrix
    coded_rows: Matrix


class TuckerSweep(Sweep):
    """Nested in both ranks."""

    def __init__(self, geometry: Geometry, kernel: Matrix, moments: Moments) -> None:
        super().__init__(geometry, kernel, moments)
        window, inputs = geometry.window, geometry.inputs
        second = moments.regularized_second()
        self._encoder = _input_factor(kernel.reshape(window, inputs, -1), second)
        # Rotated once by the full encoder; each r1 then only takes a sub-block.
        self._second = _rotated(second, self._encoder, window)
        self._plain_second = _rotated(moments.second, self._encoder, window)
        self._kernel = _encoded(kernel, self._encoder, window)
        self._rows = _encoded(moments.rows.T.astype(np.float64), self._encoder, window)
        self._output_weight = lower_factor(moments.output_weight(geometry.outputs))
        self._fit = lru_cache(maxsize=2)(self._fit_uncached)

    def _block(self, r1: int) -> NDArray[np.int64]:
        """Rows of the rotated matrices that the first r1 encoded channels occupy."""
        window, inputs = self.geometry.window, self.geometry.inputs
        return (np.arange(window)[:, None] * inputs + np.arange(r1)).ravel()

    def _fit_uncached(self, r1: int) -> _Fit:
        block = self._block(r1)
        normal = self._second[np.ix_(block, block)]
        target = self._second[block] @ self._kernel
        core = scipy.linalg.solve(normal, target, assume_a="pos")
        G = self._output_weight
        _, V = np.linalg.eigh(G.T @ (target.T @ core) @ G)
        V = V[:, ::-1]
        # W' = core G V_r V_r^T G^-1; orthonormal decoders keep the factors well scaled.
        decoder, mixing = np.linalg.qr(scipy.linalg.solve_triangular(G.T, V))
        coded = core @ G @ V
        plain = self._plain_second
        return _Fit(
            coded=coded,
            decoder=decoder,
            mixing=mixing,
            cross=(self._kernel.T @ plain[:, block]) @ coded,
            gram=coded.T @ plain[np.ix_(block, block)] @ coded,
            coded_rows=self._rows[block].T @ coded,
        )

    def _decoded(self, fit: _Fit, r2: int) -> Matrix:
        """`(r2, c)`: from coded directions to outputs."""
        return np.asarray(fit.mixing[:r2, :r2].T @ fit.decoder[:, :r2].T)

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        r1, r2 = ranks
        fit, geometry = self._fit(r1), self.geometry
        core = (fit.coded[:, :r2] @ self._decoded(fit, r2)).reshape(geometry.window, r1, -1)
        spread = np.einsum("ar,kro->kao", self._encoder[:, :r1], core)
        return np.asarray(spread.reshape(self.kernel.shape))

    def factors(self, ranks: Ranks) -> list[Matrix]:
        r1, r2 = ranks
        fit, geometry = self._fit(r1), self.geometry
        spatial = geometry.kernel_shape[:-2]
        pointwise_shape = (1,) * len(spatial)
        core = fit.coded[:, :r2] @ fit.mixing[:r2, :r2].T
        if r2 == geometry.outputs:
            core = core @ fit.decoder.T
        core = core.reshape(geometry.window, r1, r2)
        if r1 == geometry.inputs:
            core = np.einsum("ar,kro->kao", self._encoder, core)
        factors = [core.reshape(*spatial, r1, r2)]
        if r1 < geometry.inputs:
            factors.insert(0, self._encoder[:, :r1].reshape(*pointwise_shape, -1, r1))
        if r2 < geometry.outputs:
            factors.append(fit.decoder[:, :r2].T.reshape(*pointwise_shape, r2, -1))
        return factors

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        fit, r2 = self._fit(ranks[0]), ranks[1]
        decoded = self._decoded(fit, r2)
        return fit.cross[:, :r2] @ decoded, decoded.T @ fit.gram[:r2, :r2] @ decoded

    def outputs(self, ranks: Ranks) -> Matrix:
        fit, r2 = self._fit(ranks[0]), ranks[1]
        return np.asarray(fit.coded_rows[:, :r2] @ self._decoded(fit, r2))


def _input_factor(kernel: Matrix, second: Matrix) -> Matrix:
    """Orthonormal `(Cin, Cin)`, leading columns first, for a kernel `(k, Cin, Cout)`."""
    window, inputs, _ = kernel.shape
    blocks = second.reshape(window, inputs, window, inputs)
    L_channel = lower_factor(np.einsum("kakb->ab", blocks))
    L_window = lower_factor(np.einsum("kala->kl", blocks))
    whitened = np.einsum("ba,kbo->kao", L_channel, kernel)
    whitened = np.einsum("lk,lao->kao", L_window, whitened)
    unfolded = whitened.transpose(1, 0, 2).reshape(inputs, -1)
    U, _, _ = scipy.linalg.svd(unfolded @ unfolded.T)
    encoder, _ = np.linalg.qr(scipy.linalg.solve_triangular(L_channel.T, U))
    return np.asarray(encoder)


def _encoded(matrix: Matrix, encoder: Matrix, window: int) -> Matrix:
    """`(I kron encoder)^T @ matrix`, window by window."""
    inputs = encoder.shape[0]
    by_window = matrix.reshape(window, inputs, -1)
    return np.asarray(np.matmul(encoder.T, by_window).reshape(window * inputs, -1))


def _rotated(second: Matrix, encoder: Matrix, window: int) -> Matrix:
    """`(I kron encoder)^T @ second @ (I kron encoder)`."""
    return _encoded(_encoded(second, encoder, window).T, encoder, window)


def _forms(geometry: Geometry) -> list[Form]:
    applies = geometry.window > 1 and max(geometry.inputs, geometry.outputs) > 1
    return [TuckerForm(geometry)] if applies else []


METHOD = Method(TuckerForm.method, _forms)
