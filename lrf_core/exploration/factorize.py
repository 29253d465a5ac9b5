"""Carry out choices: the effective kernels they amount to, and the model with chains in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.calibration.memory import DEFAULT_MEMORY_BYTES
from lrf_core.exploration.parallel import map_side_by_side
from lrf_core.methods import Decomposition, Layout, Moments
from lrf_core.methods.base import Matrix
from lrf_core.methods.moments import MAX_FULL_WIDTH
from lrf_core.methods.weights import FitTo, decompose
from lrf_core.models.inventory import geometry_of, kernel_matrix
from lrf_core.models.splice import splice
from lrf_core.models.trace import walk

# Matrices of the size of a second moment that a decomposition holds, more or less.
_MATRICES = 4


@dataclass(frozen=True)
class Fitted:
    """The factors of one candidate, and nothing of the decomposition that they are from.

    Attributes:
        kernel: that the chain amounts to, `(n, c)`, in float32.
        factors: kernels of the chain's layers, in order.
        restart: decomposes a kernel near the one fitted, from other moments.
    """

    kernel: NDArray[np.float32]
    factors: list[Matrix]
    restart: Callable[[Matrix, Moments], Decomposition]

    @classmethod
    def of(cls, decomposition: Decomposition, candidate: Candidate) -> Fitted:
        """The truncation that is the candidate."""
        ranks = candidate.ranks
        kernel = decomposition.effective_kernel(ranks).astype(np.float32)
        return cls(kernel, decomposition.factors(ranks), decomposition.restart(ranks))


class Factorizer:
    """Factors of any candidate of a model's layers.

    Args:
        records: the layers' inventory, by path.
        moments: of every layer that a candidate may be of; looked up whenever they are needed.
        memory_bytes: for decompositions: of those being made, and of those that are kept for other
            candidates of the same layers.
        fit_to: what factors are fitted to, see `lrf_core.methods.weights.decompose`.
    """

    def __init__(
        self,
        model: keras.Model,
        records: Mapping[str, LayerRecord],
        moments: Mapping[str, Moments],
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        fit_to: FitTo = "data",
    ) -> None:
        self._model = model
        self._layers = dict(walk(model))
        self.records = records
        self._moments = moments
        self._memory = memory_bytes // 2
        self._fit_to: FitTo = fit_to
        self._decompositions = LRUCache[tuple[str, str, str], Decomposition](
            self._memory,
            getsizeof=lambda found: _bytes_of(found.geometry.kernel_shape),
        )

    def moments(self, path: str) -> Moments:
        """What the factors of a layer are fitted to."""
        return self._moments[path]

    def kernel(self, path: str) -> Matrix:
        """The kernel `(n, c)` of a layer as it was."""
        return np.ascontiguousarray(kernel_matrix(self._layers[path]))

    def fit(
        self,
        candidates: Sequence[Candidate],
        check: Callable[[Candidate, Decomposition], None] | None = None,
    ) -> dict[Candidate, Fitted]:
        """The factors of candidates, of one layer each.

        Args:
            check: called with each candidate and its decomposition, in any thread.

        Raises:
            SpecError: ranks that do not fit; and what `check` raises.
        """

        def fitted(candidate: Candidate) -> Fitted:
            decomposition = self.decomposition(candidate)
            if check:
                check(candidate, decomposition)
            return Fitted.of(decomposition, candidate)

        sizes = [_bytes_of(self.records[each.layer].kernel_shape) for each in candidates]
        found = map_side_by_side(
            fitted, candidates, "Fitting factors", sizes=sizes, most=self._memory
        )
        return dict(zip(candidates, found, strict=True))

    def assign_kernels(self, copy: keras.Model, fitted: Mapping[Candidate, Fitted]) -> None:
        """Let a copy of the model, same layers, answer as the factorized model will.

        Layers without a candidate get their own kernel back.
        """
        replaced = {candidate.layer: each.kernel for candidate, each in fitted.items()}
        layers = dict(walk(copy))
        for path in self._moments:
            kernel = replaced.get(path, self._layers[path].kernel)
            layers[path].kernel.assign(keras.ops.reshape(kernel, layers[path].kernel.shape))

    def factorized(self, fitted: Mapping[Candidate, Fitted]) -> keras.Model:
        """The model with each candidate's chain in place of its layer."""
        chains = {c.layer: self.layout(c).chain(self._layers[c.layer], c.ranks) for c in fitted}
        spliced = splice(self._model, chains)
        for candidate, each in fitted.items():
            chain, layer = chains[candidate.layer], self._layers[candidate.layer]
            links = [link for link in chain if link.weights]
            for link, factor in zip(links, each.factors, strict=True):
                link.kernel.assign(factor.reshape(link.kernel.shape))
            if layer.use_bias:
                links[-1].bias.assign(_padded(layer.bias, links[-1].bias.shape))
        return spliced

    def decomposition(self, candidate: Candidate) -> Decomposition:
        """The decomposition that a candidate is a truncation of. Raises SpecError."""
        key = candidate.layer, candidate.method, candidate.form
        found = self._decompositions.get(key)
        if found is None:
            layout = self.layout(candidate)
            layout.check_ranks(candidate.ranks)
            path = candidate.layer
            found = decompose(layout, self.kernel(path), self._moments[path], self._fit_to)
            if _bytes_of(found.geometry.kernel_shape) <= self._decompositions.maxsize:
                self._decompositions[key] = found
        return found

    def layout(self, candidate: Candidate) -> Layout:
        """How a candidate's chain is laid out. Raises SpecError."""
        geometry = geometry_of(self.records[candidate.layer])
        return methods.get(candidate.method).layout(geometry, candidate.form)


def _bytes_of(kernel_shape: Sequence[int]) -> int:
    """What decomposing a kernel holds."""
    width = min(math.prod(kernel_shape[:-1]), MAX_FULL_WIDTH)
    return 8 * (_MATRICES * width**2 + 2 * math.prod(kernel_shape))


def _padded(bias: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The bias in the shape of a chain's last factor; tensorized outputs may be padded."""
    values = keras.ops.convert_to_numpy(bias)
    return np.pad(values, (0, math.prod(shape) - len(values))).reshape(shape)
