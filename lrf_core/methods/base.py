"""What every factorization is: a cost in closed form, a decomposition, a chain of Keras layers.

Notation, here and in the methods: a kernel is the matrix `W` of shape `(n, c)`, one row per input
value (kernel positions in row-major order, then input channels), one column per output channel.
`S` is the second moment of the input rows, so the output error of a replacement `W'` is
`tr((W - W')^T S (W - W'))` for any `W'`, without running the model.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import scipy.linalg

from lrf_core.artifacts import Call, Cost
from lrf_core.errors import SpecError
from lrf_core.methods.moments import Matrix as Matrix
from lrf_core.methods.moments import Moments as Moments

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """What the cost of a layer and of its replacements depends on.

    Attributes:
        kernel_shape: `(*spatial, inputs, outputs)`; no spatial sizes for a dense layer.
        calls: sizes of the feature maps, one entry for every place where the layer is used.
        bias: whether the layer adds a bias.
        fixed_sizes: whether the model takes samples of one size only.
        strides: of a convolution, one for each spatial axis; empty if all are 1.
    """

    kernel_shape: tuple[int, ...]
    calls: tuple[Call, ...]
    bias: bool
    fixed_sizes: bool = True
    strides: tuple[int, ...] = ()

    @property
    def positions(self) -> int:
        """Output positions per sample, over all calls."""
        return sum(math.prod(call.outputs) for call in self.calls)

    @property
    def input_positions(self) -> int:
        """Input positions per sample, over all calls."""
        return self.positions_after(())

    def positions_after(self, axes: Collection[int], unstrided: Collection[int] = ()) -> int:
        """Positions once some axes have their output size, over all calls.

        Args:
            unstrided: axes that have the output size of strides of 1.
        """

        def size(call: Call, axis: int) -> int:
            if axis in unstrided and call.unstrided:
                return call.unstrided[axis]
            return (call.outputs if axis in axes else call.inputs)[axis]

        return sum(
            math.prod(size(call, axis) for axis in range(len(call.inputs))) for call in self.calls
        )

    def is_strided(self, axis: int) -> bool:
        return bool(self.strides) and self.strides[axis] > 1

    @property
    def window(self) -> int:
        """Kernel positions: 1 for a dense layer or a 1x1 convolution."""
        return math.prod(self.kernel_shape[:-2])

    @property
    def inputs(self) -> int:
        return self.kernel_shape[-2]

    @property
    def outputs(self) -> int:
        return self.kernel_shape[-1]

    @property
    def cost(self) -> Cost:
        """Of the layer as it is."""
        weights = math.prod(self.kernel_shape)
        return Cost(params=weights + self.bias_params, macs=weights * self.positions)

    @property
    def bias_params(self) -> int:
        return self.outputs if self.bias else 0


class Decomposition(ABC):
    """One decomposition of one kernel, many truncations.

    Attributes:
        geometry: of the layer.
        kernel: `W`, `(n, c)`.
        moments: what factors are fitted and judged on.
    """

    def __init__(self, geometry: Geometry, kernel: Matrix, moments: Moments) -> None:
        self.geometry = geometry
        self.kernel = kernel
        self.moments = moments

    @abstractmethod
    def effective_kernel(self, ranks: Ranks) -> Matrix:
        """The kernel `W'`, `(n, c)`, that the chain of these ranks amounts to."""

    @abstractmethod
    def factors(self, ranks: Ranks) -> list[Matrix]:
        """The kernels of the chain's layers that have one, in order, as Keras shapes them."""

    def output_moments(self, ranks: Ranks) -> tuple[Matrix, Matrix]:
        """`(W^T S W', W'^T S W')`, each `(c, c)`."""
        replaced = self.effective_kernel(ranks)
        weighted = self.moments.times(replaced)
        return self.kernel.T @ weighted, replaced.T @ weighted

    def explained_energy(self, ranks: Ranks) -> tuple[float, float]:
        """`tr(C + C^T - R)` with `C = W^T S W'` and `R = W'^T S W'`; and the same under `F`.

        The output error is `tr(W^T S W)` minus the first; `F` is the identity where the model
        gives no gradient.
        """
        cross, replaced = self.output_moments(ranks)
        kept = 2 * cross - replaced
        plain, gradient = float(np.trace(kept)), self.moments.gradient
        return plain, plain if gradient is None else float(np.vdot(gradient, kept))

    def outputs(self, ranks: Ranks) -> Matrix:
        """What the replaced layer answers to the sampled rows, before the bias: `(m, c)`."""
        return np.asarray(self.moments.rows @ self.effective_kernel(ranks))

    def note(self, ranks: Ranks) -> str:
        """What a reader should know about these factors; mostly nothing."""
        return ""

    @abstractmethod
    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        """Makes the same decomposition of a kernel near this one, good at these ranks.

        Iterative methods start from the factors they have. What is returned must hold nothing of
        this object but those: it may outlive it by far.
        """


class Layout(ABC):
    """One way to lay out a method for one geometry: costs, ranks, decomposition and chain.

    Attributes:
        method: name of the method.
        name: tells the layouts of one method apart; empty if there is one only.
        geometry: of the layer to replace.
    """

    method: str
    name: str = ""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    @property
    @abstractmethod
    def full_ranks(self) -> Ranks:
        """The ranks at which the chain reproduces every kernel of this geometry."""

    @abstractmethod
    def candidate_ranks(self, per_mode: int) -> list[Ranks]:
        """Ranks worth scoring, about `per_mode` values in each mode, small ones first."""

    @abstractmethod
    def cost(self, ranks: Ranks) -> Cost:
        """Parameters and multiply-adds of the chain, exactly as Keras will count them."""

    @abstractmethod
    def decompose(self, kernel: Matrix, moments: Moments) -> Decomposition:
        """Decompose `kernel`, `(n, c)`, once for all ranks."""

    def factors_of_weights(self, kernel: Matrix, ranks: Ranks) -> list[Matrix]:
        """What `Decomposition.factors` gives, of the kernel `(n, c)` alone.

        Raises:
            SpecError: the method has none.
        """
        raise SpecError(
            f"{self.method} has no factors of the weights alone; leave it out of explore.methods, "
            "or set explore.factors to data"
        )

    def product(self, factors: list[Matrix], ranks: Ranks) -> Matrix:
        """The kernel `(n, c)` that factors of these ranks amount to, for `factors_of_weights`."""
        raise NotImplementedError

    @abstractmethod
    def chain(self, layer: keras.Layer, ranks: Ranks) -> list[keras.Layer]:
        """Unbuilt layers that replace `layer`.

        The bias is on the last layer that has weights, the activation on the last layer.
        """

    def check_ranks(self, ranks: Ranks) -> None:
        """Raise SpecError unless every rank is at least 1 and at most full."""
        full = self.full_ranks
        fits = len(ranks) == len(full) and all(
            1 <= rank <= limit for rank, limit in zip(ranks, full, strict=True)
        )
        if not fits:
            raise SpecError(
                f"{self.method} ranks {ranks} do not fit a kernel of shape "
                f"{self.geometry.kernel_shape}: expected {len(full)} ranks from 1 to {full}"
            )


@dataclass(frozen=True)
class Method:
    """A factorization.

    Attributes:
        name: as users write it.
        layouts: the ways to lay it out for a geometry; none if the method does not apply.
        version: raised when the arithmetic changes, so that cached scores are not reused.
        exploring_cost: `(k, a, b)`: scoring a kernel of `n` rows and `c` output channels takes
            about `k * n**a * c**b` seconds of a core; layers are divided among shards by it.
            `benchmarks/exploring_cost.py` fits it, within a factor of 2.
        has_vbmf_ranks: whether the policy vbmf can choose among its candidates: each of its ranks
            is one that variational Bayes estimates for a mode of the kernel.
    """

    name: str
    layouts: Callable[[Geometry], Sequence[Layout]]
    version: int = 1
    exploring_cost: tuple[float, float, float] = (1.1e-4, 1.22, 0.13)
    has_vbmf_ranks: bool = False

    def layout(self, geometry: Geometry, name: str = "") -> Layout:
        """The layout of this name. Raises SpecError when the geometry has none."""
        for layout in self.layouts(geometry):
            if layout.name == name:
                return layout
        layout_name = f" ({name})" if name else ""
        raise SpecError(
            f"{self.name}{layout_name} does not apply to a kernel of shape {geometry.kernel_shape}"
        )


_registry: dict[str, Method] = {}


def register(method: Method) -> None:
    """Add a method. Raises ValueError when the name is taken."""
    if method.name in _registry:
        raise ValueError(f"a method named '{method.name}' is registered already")
    _registry[method.name] = method


def names() -> tuple[str, ...]:
    """Names of the registered methods, in the order they were registered."""
    return tuple(_registry)


def chosen(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The names given; those of all registered methods if none are."""
    return names() if wanted is None else tuple(wanted)


def get(name: str) -> Method:
    """The method of this name. Raises SpecError with the nearest name."""
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(_registry)}"
        raise SpecError(f"unknown method '{name}' ({hint})")
    return _registry[name]


def rank_grid(full: int, count: int) -> list[int]:
    """About `count` ranks from small to `full`, in multiples of 4 or 8 where there is room.

    Vectorized kernels run no faster on 61 channels than on 64.
    """
    step = math.ceil(full / count)
    multiple = 8 if full >= 128 else 4 if full >= 64 else 1
    step = math.ceil(step / multiple) * multiple
    return [*range(step, full, step), full]


def lower_factor(matrix: Matrix) -> Matrix:
    """`L` with `L @ L.T == matrix`, for a symmetric positive definite matrix."""
    return np.asarray(scipy.linalg.cholesky(matrix, lower=True))


def carried_over(layer: keras.Layer, position: str) -> dict[str, Any]:
    """Settings every layer of a chain takes from the layer it replaces."""
    return {
        "name": f"{layer.name}_{position}",
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
        "kernel_regularizer": layer.kernel_regularizer,
    }


def first_or_middle(layer: keras.Layer, position: str) -> dict[str, Any]:
    """Settings of a layer of the chain that is not the last: no bias, no activation."""
    return {**carried_over(layer, position), "use_bias": False}


def last(layer: keras.Layer, position: str) -> dict[str, Any]:
    """Settings of the last layer of the chain: bias and activation of the layer it replaces."""
    return {
        **carried_over(layer, position),
        "use_bias": layer.use_bias,
        "activation": layer.activation,
        "bias_regularizer": layer.bias_regularizer,
        "bias_constraint": layer.bias_constraint,
        "activity_regularizer": layer.activity_regularizer,
    }


def pointwise(layer: keras.Layer, filters: int, settings: Iterable[tuple[str, Any]]) -> keras.Layer:
    """A 1x1 convolution of the same dimensionality and data format as `layer`."""
    return type(layer)(filters, 1, data_format=layer.data_format, **dict(settings))
