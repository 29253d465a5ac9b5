"""Carry out choices: the effective kernels they amount to, and the model with chains in place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.exploration.parallel import map_side_by_side
from lrf_core.methods import Form, Moments, Sweep
from lrf_core.methods.base import Matrix
from lrf_core.models.inventory import geometry_of, kernel_matrix
from lrf_core.models.splice import splice
from lrf_core.models.trace import walk


class Factorizer:
    """Factors of any candidate of a model's layers; decompositions are made once and kept.

    Args:
        records: the layers' inventory, by path.
        moments: of every layer that a candidate may be of.
    """

    def __init__(
        self,
        model: keras.Model,
        records: Mapping[str, LayerRecord],
        moments: Mapping[str, Moments],
    ) -> None:
        self._model = model
        self._layers = dict(walk(model))
        self.records = records
        self._moments = moments
        self._sweeps: dict[tuple[str, str, str], Sweep] = {}

    def copy(self) -> Factorizer:
        """One that has all decompositions made so far; refits of either do not reach the other."""
        copy = Factorizer(self._model, self.records, self._moments)
        copy._sweeps = dict(self._sweeps)
        return copy

    def moments(self, path: str) -> Moments:
        """What the factors of a layer are fitted to."""
        return self._moments[path]

    def kernel(self, path: str) -> Matrix:
        """The kernel `(n, c)` of a layer as it was."""
        return np.ascontiguousarray(kernel_matrix(self._layers[path]))

    def effective_kernel(self, candidate: Candidate) -> Matrix:
        """The kernel `(n, c)` that stands for a candidate's chain."""
        return self.sweep(candidate).effective_kernel(candidate.ranks)

    def refit(self, candidate: Candidate, kernel: Matrix, moments: Moments) -> None:
        """From now on, factorize this kernel by these moments for the candidate's layer."""
        again = self.sweep(candidate).again(kernel, moments, candidate.ranks)
        self._sweeps[_key(candidate)] = again

    def model_with_kernels(self, candidates: Sequence[Candidate]) -> keras.Model:
        """A copy of the model, same layers, that answers as the factorized model will."""
        copy = splice(self._model, {})
        self.assign_kernels(copy, candidates)
        return copy

    def assign_kernels(self, copy: keras.Model, candidates: Sequence[Candidate]) -> None:
        """Let a copy of the model, same layers, answer as the factorized model will.

        Layers without a candidate get their own kernel back.
        """
        kernels = map_side_by_side(self.effective_kernel, candidates, "Fitting factors")
        replaced = dict(zip((c.layer for c in candidates), kernels, strict=True))
        layers = dict(walk(copy))
        for path in self._moments:
            kernel = replaced.get(path, self._layers[path].kernel)
            layers[path].kernel.assign(keras.ops.reshape(kernel, layers[path].kernel.shape))

    def factorized(self, candidates: Sequence[Candidate]) -> keras.Model:
        """The model with each candidate's chain in place of its layer."""

        def factors_of(candidate: Candidate) -> list[Matrix]:
            return self.sweep(candidate).factors(candidate.ranks)

        chains = {c.layer: self.form(c).chain(self._layers[c.layer], c.ranks) for c in candidates}
        spliced = splice(self._model, chains)
        fitted = map_side_by_side(factors_of, candidates, "Fitting factors")
        for candidate, factors in zip(candidates, fitted, strict=True):
            chain, layer = chains[candidate.layer], self._layers[candidate.layer]
            links = [link for link in chain if link.weights]
            for link, factor in zip(links, factors, strict=True):
                link.kernel.assign(factor.reshape(link.kernel.shape))
            if layer.use_bias:
                links[-1].bias.assign(_padded(layer.bias, links[-1].bias.shape))
        return spliced

    def sweep(self, candidate: Candidate) -> Sweep:
        """The decomposition that a candidate is a truncation of. Raises SpecError."""
        key = _key(candidate)
        if key not in self._sweeps:
            form = self.form(candidate)
            form.check_ranks(candidate.ranks)
            path = candidate.layer
            self._sweeps[key] = form.sweep(self.kernel(path), self._moments[path])
        return self._sweeps[key]

    def form(self, candidate: Candidate) -> Form:
        """How a candidate's chain is laid out. Raises SpecError."""
        geometry = geometry_of(self.records[candidate.layer])
        return methods.get(candidate.method).form(geometry, candidate.form)


def _key(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.layer, candidate.method, candidate.form


def _padded(bias: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The bias in the shape of a chain's last factor; tensorized outputs may be padded."""
    values = keras.ops.convert_to_numpy(bias)
    return np.pad(values, (0, math.prod(shape) - len(values))).reshape(shape)
