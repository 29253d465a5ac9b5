"""TT-matrix of a dense kernel: inputs and outputs split into modes, a small core for each pair.

Chain: Reshape to the input modes, one EinsumDense per core, Reshape to the outputs (Novikov et al.
2015, arXiv 1509.06569). Sizes that do not split evenly are padded: ZeroPadding2D before,
Cropping2D behind. Each way to split the sizes is a layout of its own; they compete. The cores come
from TT-SVD as the t3f package computes it, and are then fitted to the feature map (see
`tt_least_squares`).

Two dense layers through one channel have as many weights as the layer has inputs and outputs; a
TT-matrix may have far fewer, and that is its place. So small ranks are offered only. They form one
ladder, on which every fit starts from the one below; the error, as the fit sees it, never rises.
"""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Callable, Iterator
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
    carried_over,
)
from lrf_core.methods.moments import is_root
from lrf_core.methods.tt_least_squares import (
    PRINCIPAL_ROWS,
    Target,
    leading_directions,
    padded,
    swept,
)
from lrf_core.methods.tt_matrix import (
    MANY_WEIGHTS,
    Cores,
    Modes,
    balanced,
    expanded,
    ranks_of,
    shapes,
    times,
    with_ranks,
)

# Cores have no more weights than an SVD of this rank; from somewhere below on, that is better.
_EQUAL_SVD_RANK = 16
# Numbers in the least-squares problem of one core, at most: 64 MiB.
_LARGEST_DESIGN = 2**24
_FLOAT32_ROUNDING = 1e-6


class T3fLayout(Layout):
    """Ranks: `(r_1, ..., r_{d-1})`, one between each two cores.

    Args:
        modes: sizes of the input and the output modes, padding included.
    """

    method = "t3f"

    def __init__(self, geometry: Geometry, modes: Modes) -> None:
        super().__init__(geometry)
        self.modes = modes
        sides = ("x".join(map(str, sizes)) for sizes in (modes.inputs, modes.outputs))
        self.name = " > ".join(sides)

    @property
    def full_ranks(self) -> Ranks:
        return self.modes.full_ranks

    @cached_property
    def ladder(self) -> list[Ranks]:
        """The ranks that are offered, small ones first, none smaller than the one before."""
        rungs: list[Ranks] = []
        # The largest layers take many seconds for each rung: they have every second.
        few = math.prod(self.modes.shape) > MANY_WEIGHTS
        for wanted in itertools.islice(_rising(len(self.full_ranks)), 0, None, 2 if few else 1):
            rung = tuple(map(min, wanted, self.full_ranks))
            if rungs and not self._worthwhile(rung):
                break
            if rung not in rungs:
                rungs.append(rung)
            if rung == self.full_ranks:
                break
        return rungs

    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        every = math.ceil(len(self.ladder) / (4 * per_mode))
        return self.ladder[::-every][::-1]

    def _worthwhile(self, ranks: Ranks) -> bool:
        shapes = self.modes.core_shapes(ranks)
        weights = sum(math.prod(shape) for shape in shapes)
        answers = PRINCIPAL_ROWS * self.modes.shape[1]
        design = max(answers // n * r * m * s for r, m, n, s in shapes)
        inputs, outputs = self.geometry.inputs, self.geometry.outputs
        allowed = min(_EQUAL_SVD_RANK * (inputs + outputs), inputs * outputs // 2)
        return weights <= allowed and design <= _LARGEST_DESIGN

    def cost(self, ranks: Ranks) -> Cost:
        params = macs = 0
        before, after = 1, self.modes.shape[0]
        for shape in self.modes.core_shapes(ranks):
            weights, (_, m, n, _) = math.prod(shape), shape
            after //= m
            params += weights
            macs += before * weights * after * self.geometry.positions
            before *= n
        bias = self.modes.shape[1] if self.geometry.bias else 0
        return Cost(params=params + bias, macs=macs)

    def decompose(self, kernel: Matrix, moments: Moments) -> T3fDecomposition:
        return T3fDecomposition(self, kernel, moments)

    def factors_of_weights(self, kernel: Matrix, ranks: Ranks) -> list[Matrix]:
        whole = padded(kernel, self.modes.shape)
        if ranks == self.full_ranks:
            return list(tt_svd(whole, self.modes, ranks))
        return list(with_ranks(balanced(leading_cores(whole, self.modes, ranks)), ranks))

    def product(self, factors: list[Matrix], ranks: Ranks) -> Matrix:
        return expanded(factors)[: self.geometry.inputs, : self.geometry.outputs]

    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        """Values are `(batch, positions, ...)` in between; a plain dense layer has one position."""
        return [*self._entry(layer), *self._cores(layer, ranks), *self._exit(layer)]

    def _entry(self, layer: keras.Layer) -> list[keras.Layer]:
        """From the inputs to their modes."""
        padding = self.modes.shape[0] - self.geometry.inputs
        split = keras.layers.Reshape((-1, *self.modes.inputs), **_plain(layer, "in"))
        if not padding:
            return [split]
        return [
            keras.layers.Reshape((-1, self.geometry.inputs, 1), **_plain(layer, "rows")),
            keras.layers.ZeroPadding2D(
                ((0, 0), (0, padding)), data_format="channels_last", **_plain(layer, "pad")
            ),
            split,
        ]

    def _cores(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        """One contraction per core: `(batch, positions, n_1.., r, m_k, ..)` loses `r` and `m_k`."""
        inputs, outputs = self.modes.inputs, self.modes.outputs
        count = len(inputs)
        letters = iter(string.ascii_lowercase)
        first = next(letters) + next(letters)
        m, n, r = ("".join(next(letters) for _ in range(count)) for _ in range(3))
        # The ranks before the first core and after the last are left out.
        before, after = ["", *r[:-1]], [*r[:-1], ""]
        cores = []
        for k in range(count):
            source = f"{first}{n[:k]}{before[k]}{m[k:]}"
            kernel = f"{before[k]}{m[k]}{n[k]}{after[k]}"
            sink = f"{first}{n[: k + 1]}{after[k]}{m[k + 1 :]}"
            rank = ranks[k : k + 1]
            settings = carried_over(layer, f"t3f_core{k + 1}")
            if k == count - 1 and layer.use_bias:
                settings |= {
                    "bias_axes": n,
                    "bias_regularizer": layer.bias_regularizer,
                    "bias_constraint": layer.bias_constraint,
                }
            cores.append(
                keras.layers.EinsumDense(
                    f"{source},{kernel}->{sink}",
                    (None, *outputs[: k + 1], *rank, *inputs[k + 1 :]),
                    **settings,
                )
            )
        return cores

    def _exit(self, layer: keras.Layer) -> list[keras.Layer]:
        """From the output modes to the outputs, and what the layer does to them in the end."""
        padding = self.modes.shape[1] - self.geometry.outputs
        links = []
        if padding:
            links = [
                keras.layers.Reshape((-1, self.modes.shape[1], 1), **_plain(layer, "columns")),
                keras.layers.Cropping2D(
                    ((0, 0), (0, padding)), data_format="channels_last", **_plain(layer, "crop")
                ),
            ]
        target = (*_open_first(_leading(self.geometry)), self.geometry.outputs)
        ending = {**_plain(layer, "out"), "activity_regularizer": layer.activity_regularizer}
        if layer.activation is keras.activations.linear:
            return [*links, keras.layers.Reshape(target, **ending)]
        # Behind the Reshape, for activations that look at more than one value (softmax).
        return [
            *links,
            keras.layers.Reshape(target, **_plain(layer, "joined")),
            keras.layers.Activation(layer.activation, **ending),
        ]


class T3fDecomposition(Decomposition):
    """Not nested, but built up: every rung of the ladder starts from the one before."""

    def __init__(
        self, layout: T3fLayout, kernel: Matrix, moments: Moments, start: Cores | None = None
    ) -> None:
        super().__init__(layout.geometry, kernel, moments)
        self._layout = layout
        self._start = start
        self._all_cores: dict[Ranks, Cores] = {}
        self._fits: dict[Ranks, Cores] = {}

    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        return partial(T3fDecomposition, self._layout, start=self._cores(ranks))

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        inputs, outputs = self.kernel.shape
        return expanded(self._cores(ranks))[:inputs, :outputs]

    def factors(self, ranks: Ranks) -> list[Matrix]:
        return list(self._cores(ranks))

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        rows, answers = self._answered_rows
        replaced = self._answers(rows, ranks)
        return answers.T @ replaced, replaced.T @ replaced

    def explained_energy(self, ranks: Ranks) -> tuple[float, float]:
        rows, answers = self._answered_rows
        replaced = self._answers(rows, ranks)
        kept = 2 * answers - replaced
        plain, gradient = float(np.vdot(kept, replaced)), self.moments.gradient
        return plain, plain if gradient is None else float(np.vdot(kept @ gradient, replaced))

    def outputs(self, ranks: Ranks) -> Matrix:
        return self._answers(self.moments.rows.astype(np.float64), ranks)

    def _answers(self, rows: Matrix, ranks: Ranks) -> Matrix:
        padding = self._layout.modes.shape[0] - rows.shape[1]
        padded = np.pad(rows, ((0, 0), (0, padding)))
        return times(padded, self._cores(ranks))[:, : self.kernel.shape[1]]

    @cached_property
    def _target(self) -> Target:
        return Target.of(self.kernel, self.moments, self._layout.modes)

    @cached_property
    def _answered_rows(self) -> tuple[Matrix, Matrix]:
        """`R` with `R^T R = S`, and the layer's own answers to it."""
        second = self.moments.second
        rows = (
            second
            if is_root(second)
            else square_root(self.moments.full_second(), self.moments.rows_seen)
        )
        return rows, rows @ self.kernel

    def _cores(self, ranks: Ranks) -> Cores:
        if ranks not in self._all_cores:
            self._all_cores[ranks] = self._cores_of(ranks)
        return self._all_cores[ranks]

    def _fit(self, ranks: Ranks) -> Cores:
        if ranks not in self._fits:
            self._fits[ranks] = self._fitted(ranks)
        return self._fits[ranks]

    def _cores_of(self, ranks: Ranks) -> Cores:
        """Cores of the kernel, of exactly these ranks."""
        if ranks == self._layout.full_ranks:
            modes = self._layout.modes
            return tt_svd(padded(self.kernel, modes.shape), modes, ranks)
        fitted = self._target.whitening.undone(self._fit(ranks))
        return with_ranks(balanced(fitted), ranks)

    def _fitted(self, ranks: Ranks) -> Cores:
        """Cores of the whitened kernel, of these ranks at most."""
        target = self._target
        if self._start is not None and ranks_of(self._start) == ranks:
            return swept(target, target.whitening.applied(self._start), ranks)
        start = leading_cores(target.kernel, target.modes, ranks)
        below = [rung for rung in self._layout.ladder if rung != ranks and _within(rung, ranks)]
        if not below:
            return swept(target, swept(target, start, ranks), ranks)
        found = swept(target, self._fit(below[-1]), ranks)
        # Where the kernel is near such ranks by itself, nothing that grows comes near it.
        if target.error(start) < target.error(found):
            return swept(target, start, ranks)
        return found


def tt_svd(matrix: Matrix, modes: Modes, ranks: Ranks) -> Cores:
    """The TT-SVD of a matrix `(prod(m_k), prod(n_k))`, by t3f."""
    import t3f  # here, not above: it imports tensorflow

    found = t3f.to_tt_matrix(matrix, (modes.inputs, modes.outputs), max_tt_rank=[1, *ranks, 1])
    return tuple(np.asarray(core, np.float64) for core in found.tt_cores)


def leading_cores(matrix: Matrix, modes: Modes, ranks: Ranks) -> Cores:
    """TT-SVD at small ranks: of the matrix, once its first modes are cut to those that count.

    The first SVD of t3f is of a full unfolding, which takes many seconds for wide layers.
    """
    unfolded = modes.unfolded(matrix, 1)
    basis = leading_directions(unfolded, ranks[0])
    kept = basis.shape[1]
    rest = Modes((kept, *modes.inputs[1:]), (1, *modes.outputs[1:]))
    first, *others = tt_svd(
        (basis.T @ unfolded).reshape(rest.shape).astype(np.float64), rest, ranks
    )
    widened = (basis @ first.reshape(kept, -1)).reshape(1, modes.inputs[0], modes.outputs[0], -1)
    return (widened, *others)


def square_root(second: Matrix, rows_seen: int) -> Matrix:
    """`R`, `(q, n)`, with `R^T R` the second moment `(n, n)` of `rows_seen` rows.

    By Cholesky decomposition with pivots, which ends where only rounding is left: the moment of
    fewer rows than inputs has no more directions than rows.
    """
    rounding = _FLOAT32_ROUNDING * float(np.diag(second).max()) if rows_seen < len(second) else -1
    factor, order, rank, _ = scipy.linalg.lapack.dpstrf(second, tol=rounding)
    rows = np.zeros((rank, len(second)))
    rows[:, order - 1] = np.triu(factor)[:rank]
    return rows


def _rising(bonds: int) -> Iterator[Ranks]:
    """1, 2, 4, ... in every bond; in between, more in the middle one only."""
    for exponent in itertools.count():
        level = 2**exponent
        yield (level,) * bonds
        raised = [level] * bonds
        raised[bonds // 2] = 3 * level // 2 if bonds == 1 else 2 * level
        yield tuple(raised)


def _within(ranks: Ranks, limits: Ranks) -> bool:
    return all(rank <= limit for rank, limit in zip(ranks, limits, strict=True))


def _plain(layer: keras.Layer, position: str) -> dict[str, Any]:
    """Settings of a link without weights."""
    return {"name": f"{layer.name}_t3f_{position}", "dtype": layer.dtype_policy}


def _leading(geometry: Geometry) -> tuple[int, ...]:
    """The axes between batch and inputs."""
    return geometry.calls[0].inputs if geometry.calls else ()


def _open_first(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """One leading axis may have any size, also another one in every call."""
    return (-1, *sizes[1:]) if sizes else ()


def _can_be_restored(geometry: Geometry) -> bool:
    """Whether a Reshape can tell the leading axes apart again."""
    inner = {call.inputs[1:] for call in geometry.calls}
    depths = {len(call.inputs) for call in geometry.calls}
    if max(depths, default=0) > 1 and not geometry.fixed_sizes:
        return False
    return len(inner) <= 1 and len(depths) <= 1


def _layouts(geometry: Geometry) -> list[Layout]:
    if len(geometry.kernel_shape) > 2 or not _can_be_restored(geometry):
        return []
    return [T3fLayout(geometry, modes) for modes in shapes(geometry)]


METHOD = Method(T3fLayout.method, _layouts, exploring_cost=(8.6e-4, 0.84, 0.40))
