"""Chains of convolutions that narrow the channels in between: Tucker-2 and Tensor-Train.

Chain: Conv 1x1 (Cin > r1), one convolution for each group of spatial axes (r1 > r2 > ...), Conv 1x1
(> Cout). With all axes in one group that is Tucker-2 (Kim et al., arXiv 1511.06530), with one axis
in each it is the Tensor-Train of modes Cin, space, Cout (Oseledets 2011). Where the first or the
last rank is full, its 1x1 convolution would change nothing and is left out.

Factors are fitted to the feature map, from the first to the last. An encoder comes from the
singular vectors of an unfolding, whitened by a separable approximation of `S`; the kernel is then
refitted by least squares to the encoded inputs, and the next axis joins the channels. Given all
encoders, the best last convolution and decoder are a reduced-rank regression (Izenman 1975): the
leading eigenvectors of the fitted outputs' second moment. That is exact, and nested in the last
rank: one solve serves all its values.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import keras
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from lrf_core.artifacts import Cost
from lrf_core.methods.base import (
    MAX_FULL_WIDTH,
    Form,
    Geometry,
    Matrix,
    Moments,
    Ranks,
    Sweep,
    first_or_middle,
    last,
    lower_factor,
    pointwise,
    rank_grid,
)

Groups = tuple[tuple[int, ...], ...]


def fits_in_memory(geometry: Geometry) -> bool:
    """Whether the layer has a full second moment, which encoders are rotated with."""
    return geometry.window * geometry.inputs <= MAX_FULL_WIDTH


class TrainForm(Form):
    """Ranks: `(r1, ..., r_last)`, one between each two layers of the chain.

    Args:
        groups: the spatial axes that each convolution covers.
        ladder: ranks offered per mode, at most; those of `candidate_ranks` are among them.
    """

    def __init__(self, geometry: Geometry, method: str, groups: Groups, ladder: int) -> None:
        super().__init__(geometry)
        self.method = method
        self.groups = groups
        self._ladder = ladder

    @property
    def windows(self) -> tuple[int, ...]:
        """Kernel positions of each convolution."""
        spatial = self.geometry.kernel_shape[:-2]
        return tuple(math.prod(spatial[axis] for axis in axes) for axes in self.groups)

    @property
    def full_ranks(self) -> Ranks:
        geometry, windows = self.geometry, self.windows
        between = (
            min(
                geometry.inputs * math.prod(windows[:count]),
                math.prod(windows[count:]) * geometry.outputs,
            )
            for count in range(1, len(windows))
        )
        return (geometry.inputs, *between, geometry.outputs)

    def ladder(self, mode: int) -> list[int]:
        """Ranks of one mode that fits may build on."""
        return rank_grid(self.full_ranks[mode], self._ladder)

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        offered = []
        for mode in range(len(self.full_ranks)):
            ladder = self.ladder(mode)
            offered.append(ladder[:: -math.ceil(len(ladder) / per_mode)][::-1])
        return [ranks for ranks in itertools.product(*offered) if self._feasible(ranks)]

    def cost(self, ranks: Ranks) -> Cost:
        geometry, full = self.geometry, self.full_ranks
        params = macs = 0
        if ranks[0] < full[0]:
            params += geometry.inputs * ranks[0]
            macs += params * geometry.input_positions
        done: set[int] = set()
        for window, axes, near, far in zip(
            self.windows, self.groups, ranks, ranks[1:], strict=False
        ):
            done |= set(axes)
            params += window * near * far
            macs += window * near * far * geometry.positions_after(done)
        if ranks[-1] < full[-1]:
            params += ranks[-1] * geometry.outputs
            macs += ranks[-1] * geometry.outputs * geometry.positions
        return Cost(params=params + geometry.bias_params, macs=macs)

    def sweep(self, kernel: Matrix, moments: Moments) -> TrainSweep:
        return TrainSweep(self, kernel, moments)

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        full = self.full_ranks
        chain = []
        if ranks[0] < full[0]:
            encoder = first_or_middle(layer, f"{self.method}_in")
            chain.append(pointwise(layer, ranks[0], encoder.items()))
        for number, axes in enumerate(self.groups):
            ends = ranks[-1] == full[-1] and number == len(self.groups) - 1
            settings = last if ends else first_or_middle
            position = f"{self.method}_core{number or ''}"
            chain.append(_along(layer, axes, ranks[number + 1], settings(layer, position)))
        if ranks[-1] < full[-1]:
            decoder = last(layer, f"{self.method}_out")
            chain.append(pointwise(layer, full[-1], decoder.items()))
        return chain

    def _feasible(self, ranks: Ranks) -> bool:
        """No rank may exceed what the one before it and the window between them can carry."""
        return all(
            far <= near * window
            for near, far, window in zip(ranks, ranks[1:-1], self.windows, strict=False)
        )

    def check_ranks(self, ranks: Ranks) -> None:
        super().check_ranks(ranks)
        if not self._feasible(ranks):
            super().check_ranks(())


def _along(
    layer: keras.Layer, axes: tuple[int, ...], filters: int, settings: dict[str, object]
) -> keras.Layer:
    """The layer's convolution along some of its axes."""

    def only(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(value if axis in axes else 1 for axis, value in enumerate(values))

    return type(layer)(
        filters,
        only(layer.kernel_size),
        strides=only(layer.strides),
        padding=layer.padding,
        dilation_rate=only(layer.dilation_rate),
        data_format=layer.data_format,
        **settings,
    )


@dataclass(frozen=True)
class _Stage:
    """A kernel some of whose modes are encoded; `N` is the product of `windows` and `inputs`.

    Attributes:
        windows: kernel positions of the convolutions still to come.
        inputs: channels into the next of them.
        second: second moment of the encoded inputs with its ridge, `(N, N)`.
        target: `second` times the kernel, `(N, c)`.
        plain, plain_target: the same without ridge.
        rows: the sampled rows, encoded, `(N, m)`.
        encoders: what has led here, one matrix for each rank.
    """

    windows: tuple[int, ...]
    inputs: int
    second: Matrix
    target: Matrix
    plain: Matrix
    plain_target: Matrix
    rows: Matrix
    encoders: tuple[Matrix, ...] = ()

    def rotated(self, kernel: Matrix) -> _Stage:
        """In the basis of the encoder, leading directions first; truncation then is a block."""
        window = math.prod(self.windows)
        E = _encoder(kernel.reshape(window, self.inputs, -1), self.second)
        return _Stage(
            self.windows,
            self.inputs,
            second=_encoded(_encoded(self.second, E).T, E),
            target=_encoded(self.target, E),
            plain=_encoded(_encoded(self.plain, E).T, E),
            plain_target=_encoded(self.plain_target, E),
            rows=_encoded(self.rows, E),
            encoders=(*self.encoders, E),
        )

    def truncated(self, rank: int) -> _Stage:
        """With the first `rank` channels only."""
        window = math.prod(self.windows)
        block = (np.arange(window)[:, None] * self.inputs + np.arange(rank)).ravel()
        return self._taking(block, rank, (*self.encoders[:-1], self.encoders[-1][:, :rank]))

    def folded(self) -> _Stage:
        """With the first convolution's window joined to the channels."""
        window, *rest = self.windows
        order = np.arange(len(self.second)).reshape(window, math.prod(rest), self.inputs)
        stage = self._taking(order.swapaxes(0, 1).ravel(), self.inputs, self.encoders)
        return replace(stage, windows=tuple(rest), inputs=window * self.inputs)

    def kernel(self) -> Matrix:
        """The least-squares kernel on the encoded inputs, `(N, c)`."""
        return np.asarray(scipy.linalg.solve(self.second, self.target, assume_a="pos"))

    def _taking(self, index: NDArray[np.intp], inputs: int, encoders: tuple[Matrix, ...]) -> _Stage:
        return _Stage(
            self.windows,
            inputs,
            second=self.second[np.ix_(index, index)],
            target=self.target[index],
            plain=self.plain[np.ix_(index, index)],
            plain_target=self.plain_target[index],
            rows=self.rows[index],
            encoders=encoders,
        )


@dataclass(frozen=True)
class _Fit:
    """The reduced-rank regression behind one choice of encoders; `N` rows, `c` outputs.

    Attributes:
        stage: what it was fitted to.
        coded: fitted kernel times leading directions, `(N, c)`; its first r columns count.
        decoder: output factor, orthonormal columns, `(c, c)`; its first r columns count.
        mixing: from coded directions to decoded ones, `(c, c)`.
        explained: weighted second moment that each direction explains, `(c,)`.
        cross: `W^T S` times the coded directions, `(c, c)`.
        gram: second moment of the coded directions, `(c, c)`.
        coded_rows: the sampled rows through the coded directions, `(m, c)`.
    """

    stage: _Stage
    coded: Matrix
    decoder: Matrix
    mixing: Matrix
    explained: Matrix
    cross: Matrix
    gram: Matrix
    coded_rows: Matrix

    def decoded(self, rank: int) -> Matrix:
        """`(rank, c)`: from coded directions to outputs."""
        return np.asarray(self.mixing[:rank, :rank].T @ self.decoder[:, :rank].T)


class TrainSweep(Sweep):
    """Nested in the last rank, and in every other for the encoders before it.

    A larger encoder does not always lead to a better one after it. The error must not grow with a
    rank, so a smaller choice of encoders stands in where it is better.
    """

    def __init__(self, form: TrainForm, kernel: Matrix, moments: Moments) -> None:
        super().__init__(form.geometry, kernel, moments)
        self._form = form
        second = moments.regularized_second()
        root = _Stage(
            form.windows,
            form.geometry.inputs,
            second=second,
            target=second @ kernel,
            plain=moments.second,
            plain_target=moments.second @ kernel,
            rows=moments.rows.T.astype(np.float64),
        )
        self._root = root.rotated(kernel)
        self._output_weight = lower_factor(moments.output_weight(form.geometry.outputs))
        self._stage = lru_cache(maxsize=len(form.windows))(self._encoded_by)
        self._fit = lru_cache(maxsize=2)(self._fitted)
        self._explained = lru_cache(maxsize=None)(lambda ranks: self._fit(ranks).explained)

    def again(self, kernel: Matrix, moments: Moments, ranks: Ranks) -> TrainSweep:
        return TrainSweep(self._form, kernel, moments)

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        fit, rank = self._best(ranks), ranks[-1]
        spread = fit.coded[:, :rank] @ fit.decoded(rank)
        windows = self._form.windows
        for number in reversed(range(len(windows))):
            after = math.prod(windows[number:])
            narrow = spread.reshape(after, -1, spread.shape[-1])
            wide = np.einsum("ar,kro->kao", fit.stage.encoders[number], narrow)
            if number:
                wide = wide.reshape(after, windows[number - 1], -1, spread.shape[-1])
                wide = wide.swapaxes(0, 1)
            spread = wide.reshape(-1, spread.shape[-1])
        return np.asarray(spread.reshape(self.kernel.shape))

    def factors(self, ranks: Ranks) -> list[Matrix]:
        fit, full = self._best(ranks), self._form.full_ranks
        core = fit.coded[:, : ranks[-1]] @ fit.mixing[: ranks[-1], : ranks[-1]].T
        factors = _widened([*fit.stage.encoders, core], self._form.windows, ranks)
        if ranks[-1] == full[-1]:
            factors[-1] = factors[-1] @ fit.decoder.T
        else:
            factors.append(fit.decoder[:, : ranks[-1]].T)
        if ranks[0] == full[0]:
            encoder = factors.pop(0)
            first = factors[0].reshape(self._form.windows[0], ranks[0], -1)
            factors[0] = np.einsum("ar,kro->kao", encoder, first).reshape(factors[0].shape)
        return factors

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        fit, rank = self._best(ranks), ranks[-1]
        decoded = fit.decoded(rank)
        return fit.cross[:, :rank] @ decoded, decoded.T @ fit.gram[:rank, :rank] @ decoded

    def outputs(self, ranks: Ranks) -> Matrix:
        fit, rank = self._best(ranks), ranks[-1]
        return np.asarray(fit.coded_rows[:, :rank] @ fit.decoded(rank))

    def _best(self, ranks: Ranks) -> _Fit:
        """The fit with the least error among the encoders of these ranks and of smaller ones."""
        best = ranks[:-1]
        most = self._explained(best)[: ranks[-1]].sum()
        for smaller in self._smaller(best):
            explained = self._explained(smaller)[: ranks[-1]].sum()
            if explained > most:
                best, most = smaller, explained
        return self._fit(best)

    def _smaller(self, encoders: Ranks) -> list[Ranks]:
        if len(encoders) == 1:
            return []  # the first encoder is nested: a larger one is never worse
        offered = [
            [rank for rank in self._form.ladder(mode) if rank < limit] + [limit]
            for mode, limit in enumerate(encoders)
        ]
        return [
            ranks
            for ranks in itertools.product(*offered)
            if ranks != encoders and self._form._feasible((*ranks, 1))
        ]

    def _encoded_by(self, encoders: Ranks) -> _Stage:
        """With these encoders applied, in the basis of the next."""
        if not encoders:
            return self._root
        stage = self._stage(encoders[:-1]).truncated(encoders[-1]).folded()
        return stage.rotated(stage.kernel())

    def _fitted(self, encoders: Ranks) -> _Fit:
        stage = self._stage(encoders[:-1]).truncated(encoders[-1])
        kernel, G = stage.kernel(), self._output_weight
        values, V = np.linalg.eigh(G.T @ (stage.target.T @ kernel) @ G)
        values, V = values[::-1], V[:, ::-1]
        # W' = kernel G V_r V_r^T G^-1; orthonormal decoders keep the factors well scaled.
        decoder, mixing = np.linalg.qr(scipy.linalg.solve_triangular(G.T, V))
        coded = kernel @ G @ V
        return _Fit(
            stage=stage,
            coded=coded,
            decoder=decoder,
            mixing=mixing,
            explained=values,
            cross=stage.plain_target.T @ coded,
            gram=coded.T @ stage.plain @ coded,
            coded_rows=stage.rows.T @ coded,
        )


def _widened(factors: list[Matrix], windows: tuple[int, ...], ranks: Ranks) -> list[Matrix]:
    """Zeros added where smaller encoders stand in for larger ones."""
    widened = []
    before = (1, *windows)
    inputs = factors[0].shape[0]
    for factor, window, rank in zip(factors, before, ranks, strict=True):
        split = factor.reshape(window, -1, factor.shape[1])
        extra = ((0, 0), (0, inputs - split.shape[1]), (0, rank - split.shape[2]))
        widened.append(np.pad(split, extra).reshape(window * inputs, rank))
        inputs = rank
    return widened


def _encoder(kernel: Matrix, second: Matrix) -> Matrix:
    """Orthonormal `(inputs, inputs)`, leading columns first, for a kernel `(k, inputs, c)`."""
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


def _encoded(matrix: Matrix, encoder: Matrix) -> Matrix:
    """`(I kron encoder)^T @ matrix`, window by window."""
    by_window = matrix.reshape(-1, encoder.shape[0], matrix.shape[1])
    return np.asarray(np.matmul(encoder.T, by_window).reshape(-1, matrix.shape[1]))
