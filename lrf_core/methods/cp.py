"""Canonical polyadic (CP) decomposition, for Conv1D, Conv2D and Conv3D.

A kernel is a sum of R components, each a product of one vector per mode (Lebedev et al. 2015, arXiv
1412.6553). Chain: Conv 1x1 (Cin > R), channelwise convolutions over space, Conv 1x1 (R > Cout).
Two layouts compete: "merged" keeps the kernel's window as one mode, one depthwise convolution of
the whole window; "per axis" has one mode and one depthwise convolution for each spatial axis. R may
exceed the number of channels. Keras has no depthwise Conv3D and LiteRT runs no grouped one, so 3-D
kernels have the "per axis" layout only: with the other two axes folded, each is a 2-D convolution.

Factors are fitted to the feature map: alternating least squares on the kernel whitened by a
Kronecker approximation of `S`, first on its Tucker core, then descent on the exact output error.
Ranks build on each other: the components of a rank start those of the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import numpy as np
import numpy.typing as npt
import scipy.linalg
from tensorly import tenalg, unfold
from tensorly.decomposition import parafac

from lrf_core.artifacts import Cost
from lrf_core.methods.als import (
    RIDGE,
    Components,
    Solved,
    alternate,
    improve,
    residual,
    solved_as_is,
)
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
from lrf_core.methods.cp_chain import depthwise, depthwise_3d

# Ranks that build on each other: in steps of this share of the highest, and wider ones from where
# a step is less than this growth. High ranks take the longest and gain the least.
_STEP = 1 / 16
_GROWTH = 1.2
_GROWTH_OF_WIDE = 1.9
_HIGHEST_OF_WIDE = 0.5
# Starts that are tried for new components, and the sweeps after which the best goes on.
_SEEDS = 2
_TRIAL_SWEEPS = 3
_CORE_SWEEPS = 30
_CORE_SWEEPS_OF_WIDE = 3
_FULL_SWEEPS = 2
_EXACT_SWEEPS = 2
_REFIT_SWEEPS = 8
# Multiply-adds for the sweeps of one fit, and of one that will be used: wide layers get fewer.
_WORK = 2 * 10**10
# Weights from which a kernel counts as wide: fewer ranks and sweeps, in float32.
_WIDE = 2**17
_REFIT_WORK = 10**11
# Share of the whitened kernel's energy that its Tucker core may miss.
_CORE_TAIL = 1e-3
# Above this ratio of energies, components are taken to cancel each other: they are regularized, by
# ridges that grow by this factor, so many at most: the last is about as large as the kernel.
_LARGEST_NORM_RATIO = 1000.0
_STRONGER = 30.0
_RIDGES = 4


class CpLayout(Layout):
    """Ranks: `(R,)`, the number of components.

    Args:
        axes: for every depthwise convolution of the chain, the spatial axes it covers.
    """

    method = "cp"

    def __init__(self, geometry: Geometry, name: str, axes: tuple[tuple[int, ...], ...]) -> None:
        super().__init__(geometry)
        self.name = name
        self.axes = axes

    @property
    def modes(self) -> tuple[int, ...]:
        """Sizes of the kernel's modes but the last: spatial ones, then input channels."""
        spatial = self.geometry.kernel_shape[:-2]
        merged = tuple(math.prod(spatial[axis] for axis in axes) for axes in self.axes)
        return (*merged, self.geometry.inputs)

    @property
    def is_wide(self) -> bool:
        return math.prod(self.geometry.kernel_shape) >= _WIDE

    @property
    def full_ranks(self) -> Ranks:
        sizes = (*self.modes, self.geometry.outputs)
        return (math.prod(sizes) // max(sizes),)

    @property
    def ladder(self) -> list[int]:
        """Ranks that build on each other, up to where the chain has the layer's parameters."""
        component = sum(self.modes) + self.geometry.outputs
        even = math.prod(self.geometry.kernel_shape) // component
        steps = rank_grid(max(1, min(even, self.full_ranks[0])), round(1 / _STEP))
        ladder = steps[:1]
        growth = _GROWTH_OF_WIDE if self.is_wide else _GROWTH
        steps = [step for step in steps if not self.is_wide or step <= _HIGHEST_OF_WIDE * steps[-1]]
        for step, after in itertools.pairwise([*steps[1:], math.inf]):
            if after > growth * ladder[-1]:
                ladder.append(int(step))
        return ladder

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        ladder = self.ladder
        every = math.ceil(len(ladder) / per_mode)
        return [(rank,) for rank in ladder[::-every][::-1]]

    def cost(self, ranks: Ranks) -> Cost:
        (rank,) = ranks
        geometry = self.geometry
        *windows, inputs = self.modes
        component = sum(self.modes) + geometry.outputs
        macs = inputs * geometry.input_positions + geometry.outputs * geometry.positions
        done: set[int] = set()
        for window, axes in zip(windows, self.axes, strict=True):
            done |= set(axes)
            # An axis by itself is convolved at every position, see `depthwise`.
            unstrided = axes if len(axes) < len(geometry.kernel_shape) - 2 else ()
            macs += window * geometry.positions_after(done, unstrided)
        return Cost(params=rank * component + geometry.bias_params, macs=rank * macs)

    def decompose(self, kernel: Matrix, moments: Moments) -> CpDecomposition:
        return CpDecomposition(self, kernel, moments)

    def factors_of_weights(self, kernel: Matrix, ranks: Ranks) -> list[Matrix]:
        tensor = kernel.reshape(*self.modes, -1)
        init = "svd" if ranks[0] <= min(tensor.shape) else "random"
        weights, (*inner, outer) = parafac(tensor, ranks[0], init=init, random_state=0)
        return _as_factors(Components(tuple(inner), outer * weights).balanced())

    def product(self, factors: list[Matrix], ranks: Ranks) -> Matrix:
        encoder, *windows, decoder = factors
        return Components((*windows, encoder), decoder.T).dictionary() @ decoder

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        (rank,) = ranks
        if len(layer.kernel_size) == 3:
            middle = depthwise_3d(layer, self.axes, self.geometry.calls[0], rank)
        else:
            middle = depthwise(layer, self.axes, self.geometry.calls[0])
        return [
            pointwise(layer, rank, first_or_middle(layer, "cp_in").items()),
            *middle,
            pointwise(layer, layer.filters, last(layer, "cp_out").items()),
        ]


def _as_factors(components: Components) -> list[Matrix]:
    """In the order of the chain's layers."""
    *windows, encoder = components.inner
    return [encoder, *windows, components.outer.T]


@dataclass(frozen=True)
class _Fit:
    solved: Solved
    note: str = ""

    @property
    def components(self) -> Components:
        return self.solved.components


class CpDecomposition(Decomposition):
    """Not nested, but built up: every rank of the ladder starts from the one before.

    Args:
        start: components to improve instead, at their rank.
    """

    def __init__(
        self, layout: CpLayout, kernel: Matrix, moments: Moments, start: Components | None = None
    ) -> None:
        super().__init__(layout.geometry, kernel, moments)
        self._layout = layout
        self._start = start
        self._output_weight = lower_factor(moments.output_weight(kernel.shape[1]))
        self._second = moments.regularized()
        self._kernel = kernel @ self._output_weight
        self._target = self._second.times(self._kernel)
        self._fits: dict[int, _Fit] = {}

    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        return partial(CpDecomposition, self._layout, start=self._fit(ranks[0]).components)

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        components = self._fit(ranks[0]).components
        return np.asarray(components.dictionary() @ self._decoder(components).T)

    def factors(self, ranks: Ranks) -> list[Matrix]:
        fitted = self._fit(ranks[0]).components
        return _as_factors(Components(fitted.inner, self._decoder(fitted)).balanced())

    def explained_energy(self, ranks: Ranks) -> tuple[float, float]:
        solved, ridge = self._fit(ranks[0]).solved, self.moments.ridge
        Z = self._decoder(solved.components)
        gram = solved.gram - ridge * solved.components.dictionary_gram()
        projected = scipy.linalg.solve_triangular(self._output_weight.T, solved.projected.T).T
        cross = projected - ridge * (solved.components.dictionary().T @ self.kernel)

        def kept(weighted: Matrix) -> float:
            return float(2 * np.vdot(cross, weighted.T) - np.vdot(gram, Z.T @ weighted))

        gradient = self.moments.gradient
        plain = kept(Z)
        return plain, plain if gradient is None else kept(gradient @ Z)

    def outputs(self, ranks: Ranks) -> Matrix:
        components = self._fit(ranks[0]).components
        dictionary = components.dictionary().astype(np.float32)
        return np.asarray((self.moments.rows @ dictionary) @ self._decoder(components).T)

    def note(self, ranks: Ranks) -> str:
        return self._fit(ranks[0]).note

    def _decoder(self, components: Components) -> Matrix:
        """`(c, R)`: the outer factor, with the output weight undone."""
        return np.asarray(scipy.linalg.solve_triangular(self._output_weight.T, components.outer))

    def _fit(self, rank: int) -> _Fit:
        if rank not in self._fits:
            self._fits[rank] = self._made(rank)
        return self._fits[rank]

    def _made(self, rank: int) -> _Fit:
        if rank >= self._layout.full_ranks[0]:
            return _Fit(solved_as_is(self._second, self._target, self._enumerated()))
        fitted = self._fitted(rank, RIDGE)
        ratio = fitted.components.norm_ratio()
        if ratio <= _LARGEST_NORM_RATIO:
            return _Fit(fitted)
        for stronger in range(1, _RIDGES + 1):
            fitted = self._fitted(rank, RIDGE * _STRONGER**stronger)
            if fitted.components.norm_ratio() <= _LARGEST_NORM_RATIO:
                break
        return _Fit(fitted, f"regularized: components cancelled each other (ratio {ratio:.0f})")

    def _fitted(self, rank: int, ridge: float) -> Solved:
        """Components of this rank, no worse than those they start from."""
        start: Solved | None = None
        if self._start is not None and self._start.rank == rank:
            start = solved_as_is(self._second, self._target, self._start)
            grown = self._start
            sweeps, allowed = _REFIT_SWEEPS, _REFIT_WORK
        else:
            lower = [each for each in self._layout.ladder if each < rank]
            start = self._fit(lower[-1]).solved if lower else None
            grown = self._grown(start.components if start else None, rank, ridge)
            sweeps, allowed = _EXACT_SWEEPS, _WORK
        work = 6 * self._second.size * rank * len(grown.inner)
        improved = improve(self._second, self._target, grown, min(sweeps, allowed // work), ridge)
        if start is None or improved.error() <= start.error():
            return improved
        extended = start.components.extended(rank, np.random.default_rng(rank))
        return solved_as_is(self._second, self._target, extended)

    def _grown(self, start: Components | None, rank: int, ridge: float) -> Components:
        """More components, fitted in the whitened space: the best of several random starts."""
        core = self._core
        coded = core.encoded(start) if start else core.nothing()
        modes = core.tensor.ndim
        most = _CORE_SWEEPS_OF_WIDE if self._layout.is_wide else _CORE_SWEEPS
        sweeps = min(most, _WORK // (rank * modes * (core.tensor.size + rank**2)))
        trials = []
        for seed in range(1 if self._layout.is_wide else _SEEDS):
            first = coded.extended(rank, np.random.default_rng((rank, seed)))
            trials.append(alternate(core.tensor, first, _TRIAL_SWEEPS, ridge))
        best = min(trials, key=lambda trial: residual(core.tensor, trial))
        return core.decoded(alternate(core.tensor, best, sweeps, ridge), ridge).of_type(np.float64)

    def _enumerated(self) -> Components:
        """Exact: one component for every index of all modes but the largest."""
        tensor = self._kernel.reshape(*self._layout.modes, -1)
        largest = int(np.argmax(tensor.shape))
        fibers = np.moveaxis(tensor, largest, -1)
        sizes = fibers.shape[:-1]
        indices = np.indices(sizes).reshape(len(sizes), -1)
        factors = [np.eye(size)[:, index] for size, index in zip(sizes, indices, strict=True)]
        factors.insert(largest, fibers.reshape(-1, fibers.shape[-1]).T)
        return Components(tuple(factors[:-1]), factors[-1])

    @cached_property
    def _core(self) -> _Core:
        modes = self._layout.modes
        precision: npt.DTypeLike = np.float32 if self._layout.is_wide else np.float64
        whiteners = [lower_factor(M).astype(precision) for M in self._second.marginals(modes)]
        tensor = self._kernel.reshape(*modes, -1).astype(precision)
        for axis, L in enumerate(whiteners):
            tensor = tenalg.mode_dot(tensor, L.T, axis)
        channels = len(modes) - 1
        encoder = _leading(tensor, channels)
        decoder = _leading(tensor, channels + 1)
        small = tenalg.mode_dot(
            tenalg.mode_dot(tensor, encoder.T, channels), decoder.T, channels + 1
        )
        return _Core(tensor, small, tuple(whiteners), encoder, decoder)


@dataclass(frozen=True)
class _Core:
    """A whitened kernel and its Tucker core over the two channel modes.

    Attributes:
        whitened: `(d_1, ..., Cin, c)`.
        tensor: the core, `(d_1, ..., r1, r2)`.
        whiteners: `L_j` of every inner mode.
        encoder: orthonormal `(Cin, r1)`.
        decoder: orthonormal `(c, r2)`.
    """

    whitened: Matrix
    tensor: Matrix
    whiteners: tuple[Matrix, ...]
    encoder: Matrix
    decoder: Matrix

    def nothing(self) -> Components:
        """No components yet."""
        *inner, outer = (np.zeros((size, 0)) for size in self.tensor.shape)
        return Components(tuple(inner), outer)

    def encoded(self, components: Components) -> Components:
        inner = [L.T @ X for L, X in zip(self.whiteners, components.inner, strict=True)]
        inner[-1] = self.encoder.T @ inner[-1]
        return Components(tuple(inner), self.decoder.T @ components.outer)

    def decoded(self, components: Components, ridge: float) -> Components:
        inner = [*components.inner[:-1], self.encoder @ components.inner[-1]]
        found = Components(tuple(inner), self.decoder @ components.outer)
        if self.tensor.size < self.whitened.size:
            found = alternate(self.whitened, found, _FULL_SWEEPS, ridge)
        unwhitened = (
            scipy.linalg.solve_triangular(L.T, X)
            for L, X in zip(self.whiteners, found.inner, strict=True)
        )
        return Components(tuple(unwhitened), found.outer)


def _leading(tensor: Matrix, axis: int) -> Matrix:
    """Orthonormal directions of one mode that hold all but `_CORE_TAIL` of the energy."""
    unfolded = unfold(tensor, axis)
    values, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    missed = np.cumsum(values)
    kept = int(np.sum(missed > _CORE_TAIL / 2 * missed[-1]))
    return np.asarray(vectors[:, len(values) - max(kept, 1) :])


def _layouts(geometry: Geometry) -> list[Layout]:
    spatial = geometry.kernel_shape[:-2]
    if geometry.window == 1 or geometry.inputs == geometry.outputs == 1:
        return []
    resized = [
        axis
        for axis, size in enumerate(spatial)
        if size > 1 or any(call.inputs[axis] != call.outputs[axis] for call in geometry.calls)
    ]
    layouts: list[Layout] = []
    if len(spatial) < 3 and len(set(geometry.strides)) <= 1:
        layouts.append(CpLayout(geometry, "merged", (tuple(range(len(spatial))),)))
    by_size = len(spatial) == 3 or any(map(geometry.is_strided, range(len(spatial))))
    known = geometry.fixed_sizes and len(set(geometry.calls)) == 1
    # Folding a volume's axes, and taking every second position, need to know the sizes.
    if (len(resized) > 1 or not layouts) and (known or not by_size):
        layouts.append(CpLayout(geometry, "per axis", tuple((axis,) for axis in resized)))
    return layouts


METHOD = Method(CpLayout.method, _layouts, version=2, exploring_cost=(7.1e-5, 1.49, 0.37))
