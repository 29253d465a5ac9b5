"""Chains of convolutions that narrow the channels in between: Tucker-2 and Tensor-Train.

Chain: Conv 1x1 (Cin > r1), one convolution for each group of spatial axes (r1 > r2 > ...), Conv 1x1
(> Cout). With all axes in one group that is Tucker-2 (Kim et al., arXiv 1511.06530), with one axis
in each it is the Tensor-Train of modes Cin, space, Cout (Oseledets 2011). If the first or the
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
from collections.abc import Callable
from functools import cached_property, partial

import keras
import numpy as np
import scipy.linalg
from cachetools import LRUCache
from tensorly.decomposition import partial_tucker, tensor_train

from lrf_core.artifacts import Cost
from lrf_core.methods.base import (
    Decomposition,
    Geometry,
    Layout,
    Matrix,
    Moments,
    Ranks,
    first_or_middle,
    last,
    lower_factor,
    pointwise,
    rank_grid,
)
from lrf_core.methods.encoded import Fit, Stage, in_basis
from lrf_core.methods.moments import MAX_FULL_WIDTH, is_root
from lrf_core.methods.truncation_error import Sums, explained_by_rank

# Every first rank takes a solve of its own: of this many weights, fewer are offered.
_MANY_WEIGHTS = 2**20
_OFFERED_OF_MANY = 8

Groups = tuple[tuple[int, ...], ...]


def fits_in_memory(geometry: Geometry) -> bool:
    """Whether the layer has a full second moment, which encoders are rotated with."""
    return geometry.window * geometry.inputs <= MAX_FULL_WIDTH


class BottleneckChain(Layout):
    """Ranks: `(r1, ..., r_last)`, one between each two layers of the chain.

    Args:
        groups: the spatial axes that each convolution covers.
        ladder: ranks offered per mode, at most; those of `candidate_ranks` are among them.
        encoded_only: no candidates whose first rank is full: they take half of the time.
    """

    def __init__(
        self,
        geometry: Geometry,
        method: str,
        groups: Groups,
        ladder: int,
        *,
        encoded_only: bool = False,
    ) -> None:
        super().__init__(geometry)
        self._encoded_only = encoded_only
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

    def _offered(self, mode: int, per_mode: int) -> list[int]:
        ladder = self.ladder(mode)
        if mode == 0 and self._encoded_only and len(ladder) > 1:
            ladder = ladder[:-1]
        if mode == 0 and math.prod(self.geometry.kernel_shape) >= _MANY_WEIGHTS:
            per_mode = min(per_mode, _OFFERED_OF_MANY)
        return ladder[:: -math.ceil(len(ladder) / per_mode)][::-1]

    def widest(self, encoders: Ranks) -> int:
        """The largest rank after these that can have fewer parameters than the layer."""
        mode = len(encoders)
        rest = (1,) * (len(self.full_ranks) - mode - 1)
        return max(
            (
                rank
                for rank in self.ladder(mode)
                if self.cost((*encoders, rank, *rest)).params < self.geometry.cost.params
            ),
            default=self.full_ranks[mode],
        )

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        offered = [self._offered(mode, per_mode) for mode in range(len(self.full_ranks))]
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

    def decompose(self, kernel: Matrix, moments: Moments) -> BottleneckDecomposition:
        return BottleneckDecomposition(self, kernel, moments)

    def factors_of_weights(self, kernel: Matrix, ranks: Ranks) -> list[Matrix]:
        geometry, full = self.geometry, self.full_ranks
        by_channel = _by_channel(kernel, geometry)
        tensor = by_channel.reshape(geometry.inputs, *self.windows, geometry.outputs)
        if len(self.windows) == 1:
            sides = {"rank": list(ranks), "modes": [0, 2]}
            (core, (first, final)), _ = partial_tucker(tensor, init="svd", **sides)
            cores = [first[None], core, final.T[..., None]]
        else:
            cores = tensor_train(tensor, [1, *ranks, 1])
        encoder, *middle, decoder = [np.asarray(core) for core in cores]
        convolutions = [core.swapaxes(0, 1) for core in middle]
        if ranks[0] == full[0]:
            convolutions[0] = encoder[0] @ convolutions[0]
        if ranks[-1] == full[-1]:
            convolutions[-1] = convolutions[-1] @ decoder[..., 0]
        return [
            *([encoder[0]] if ranks[0] < full[0] else []),
            *convolutions,
            *([decoder[..., 0]] if ranks[-1] < full[-1] else []),
        ]

    def product(self, factors: list[Matrix], ranks: Ranks) -> Matrix:
        full, convolutions = self.full_ranks, list(factors)
        encoder = convolutions.pop(0) if ranks[0] < full[0] else np.eye(full[0])
        spread = convolutions.pop() if ranks[-1] < full[-1] else np.eye(full[-1])
        for convolution in reversed(convolutions):
            joined = convolution @ spread.reshape(convolution.shape[-1], -1)
            spread = joined.swapaxes(0, 1)
        kernel = encoder @ spread.reshape(ranks[0], -1)
        return _by_position(kernel.reshape(-1, self.geometry.outputs), self.geometry)

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


class BottleneckDecomposition(Decomposition):
    """Nested in the last rank, and in every other for the encoders before it.

    A larger encoder does not always lead to a better one after it. The error must not grow with a
    rank, so a smaller choice of encoders stands in where it is better.
    """

    def __init__(self, layout: BottleneckChain, kernel: Matrix, moments: Moments) -> None:
        super().__init__(layout.geometry, kernel, moments)
        self._layout = layout
        self._output_weight = lower_factor(moments.output_weight(layout.geometry.outputs))
        # Not by a decorator: its cycle of references would hold gigabytes for long.
        self._stages = LRUCache[tuple[Ranks, int], Stage](len(layout.windows))
        self._fits = LRUCache[Ranks, Fit](2)
        self._all_values: dict[Ranks, Sums] = {}
        self._all_sums: dict[Ranks, tuple[Sums, Sums]] = {}

    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        return partial(BottleneckDecomposition, self._layout)

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        encoders, rank = self._best(ranks), ranks[-1]
        fit, windows, outputs = self._fit(encoders), self._layout.windows, self.kernel.shape[1]
        spread = fit.coded[:, :rank] @ fit.decoder[:rank]
        for number in reversed(range(len(windows))):
            encoder = fit.stage.encoders[number][:, : encoders[number]]
            narrow = spread.reshape(encoder.shape[1], -1)
            spread = (encoder @ narrow).reshape(-1, outputs)
        return np.asarray(_by_position(spread, self._layout.geometry))

    def factors(self, ranks: Ranks) -> list[Matrix]:
        encoders, rank, full = self._best(ranks), ranks[-1], self._layout.full_ranks
        fit = self._fit(encoders)
        # Orthonormal decoders keep the factors well scaled.
        decoder, mixing = np.linalg.qr(fit.decoder[:rank].T)
        chosen = zip(fit.stage.encoders, encoders, strict=True)
        matrices = [encoder[:, :limit] for encoder, limit in chosen]
        matrices.append(fit.coded[:, :rank] @ mixing.T)
        factors = _widened(matrices, self._layout.windows, ranks)
        if rank == full[-1]:
            factors[-1] = factors[-1] @ decoder.T
        else:
            factors.append(decoder.T)
        if ranks[0] == full[0]:
            encoder = factors.pop(0)
            first = factors[0].reshape(self._layout.windows[0], ranks[0], -1)
            factors[0] = np.matmul(encoder, first).reshape(factors[0].shape)
        return factors

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        fit, rank, ridge = self._fit(self._best(ranks)), ranks[-1], self.moments.ridge
        decoded = fit.decoder[:rank]
        gram = fit.gram(ridge)[:rank, :rank]
        return fit.cross(ridge)[:, :rank] @ decoded, decoded.T @ gram @ decoded

    def explained_energy(self, ranks: Ranks) -> tuple[float, float]:
        plain, weighted = self._sums(self._best(ranks))
        return float(plain[ranks[-1]]), float(weighted[ranks[-1]])

    def outputs(self, ranks: Ranks) -> Matrix:
        fit, rank = self._fit(self._best(ranks)), ranks[-1]
        return np.asarray(fit.coded_rows[:, :rank] @ fit.decoder[:rank])

    def _fit(self, encoders: Ranks) -> Fit:
        if encoders not in self._fits:
            self._fits[encoders] = self._fitted(encoders)
        return self._fits[encoders]

    def _values(self, encoders: Ranks) -> Sums:
        if encoders not in self._all_values:
            self._all_values[encoders] = self._fit(encoders).values
        return self._all_values[encoders]

    def _sums(self, encoders: Ranks) -> tuple[Sums, Sums]:
        if encoders not in self._all_sums:
            self._all_sums[encoders] = self._explained_by_rank(encoders)
        return self._all_sums[encoders]

    def _best(self, ranks: Ranks) -> Ranks:
        """The encoders with the least error at the last rank, among these and smaller ones."""
        best = ranks[:-1]
        most = self._values(best)[: ranks[-1]].sum()
        for smaller in self._smaller(best):
            explained_energy = self._values(smaller)[: ranks[-1]].sum()
            if explained_energy > most:
                best, most = smaller, explained_energy
        return best

    def _smaller(self, encoders: Ranks) -> list[Ranks]:
        if len(encoders) == 1:
            return []  # the first encoder is nested: a larger one is never worse
        offered = [
            [rank for rank in self._layout.ladder(mode) if rank < limit] + [limit]
            for mode, limit in enumerate(encoders)
        ]
        return [
            ranks
            for ranks in itertools.product(*offered)
            if ranks != encoders and self._layout._feasible((*ranks, 1))
        ]

    def _explained_by_rank(self, encoders: Ranks) -> tuple[Sums, Sums]:
        fit, ridge = self._fit(encoders), self.moments.ridge
        return explained_by_rank(
            fit.cross(ridge), fit.gram(ridge), fit.decoder, self.moments.gradient
        )

    @cached_property
    def _root(self) -> Stage:
        geometry = self._layout.geometry
        window, inputs = geometry.window, geometry.inputs
        moments = self.moments
        own = moments.full_second() if is_root(moments.second) else moments.second
        split = own.reshape(window, inputs, window, inputs).transpose(1, 0, 3, 2)
        second = np.array(split, np.float64, order="C").reshape(window * inputs, -1)
        second.flat[:: len(second) + 1] += moments.ridge
        kernel = _by_channel(self.kernel, geometry)
        rows = _by_channel(self.moments.rows.T.astype(np.float64), geometry)
        return in_basis(
            window, second, kernel, (second @ kernel, kernel, rows), (), self._layout.full_ranks[0]
        )

    def _stage(self, encoders: Ranks, widest: int) -> Stage:
        key = encoders, widest
        if key not in self._stages:
            self._stages[key] = self._stage_after(encoders, widest)
        return self._stages[key]

    def _stage_after(self, encoders: Ranks, widest: int) -> Stage:
        """With these encoders applied, in the basis of the next."""
        if not encoders:
            return self._root
        stage = self._stage_of(encoders)
        size = encoders[-1] * stage.window
        fitted = stage.backward(stage.solved_target[:size])
        axis = self._layout.windows[len(encoders) - 1]
        return stage.encoded(encoders[-1], fitted, axis, widest)

    def _stage_of(self, encoders: Ranks) -> Stage:
        """In which the last of these encoders is a truncation."""
        before, rank = encoders[:-1], encoders[-1]
        widest = self._layout.widest(before)
        return self._stage(
            before, widest if rank <= widest else self._layout.full_ranks[len(before)]
        )

    def _fitted(self, encoders: Ranks) -> Fit:
        stage, G = self._stage_of(encoders), self._output_weight
        size = encoders[-1] * stage.window
        solved = stage.solved_target[:size] @ G
        values, V = np.linalg.eigh(solved.T @ solved)
        values, V = values[::-1], V[:, ::-1]
        # W' = kernel G V_r V_r^T G^-1
        decoder = scipy.linalg.solve_triangular(G.T, V).T
        return Fit(stage, G @ V, decoder, values, size)


def _by_channel(matrix: Matrix, geometry: Geometry) -> Matrix:
    """Rows in the order of kernels, `(window * inputs, ...)`, put in order of the channels."""
    split = matrix.reshape(geometry.window, geometry.inputs, -1)
    return np.ascontiguousarray(split.swapaxes(0, 1)).reshape(len(matrix), -1)


def _by_position(matrix: Matrix, geometry: Geometry) -> Matrix:
    """The inverse of `_by_channel`."""
    split = matrix.reshape(geometry.inputs, geometry.window, -1)
    return np.ascontiguousarray(split.swapaxes(0, 1)).reshape(len(matrix), -1)


def _widened(factors: list[Matrix], windows: tuple[int, ...], ranks: Ranks) -> list[Matrix]:
    """As Keras orders kernels; zeros added where smaller encoders stand in for larger ones."""
    widened = []
    inputs = factors[0].shape[0]
    for factor, window, rank in zip(factors, (1, *windows), ranks, strict=True):
        split = factor.reshape(-1, window, factor.shape[1]).swapaxes(0, 1)
        extra = ((0, 0), (0, inputs - split.shape[1]), (0, rank - split.shape[2]))
        widened.append(np.pad(split, extra).reshape(window * inputs, rank))
        inputs = rank
    return widened
