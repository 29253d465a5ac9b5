"""Carry out choices: the effective kernels they amount to, and the model with chains in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from lrf_core import methods
from lrf_core.artifacts import Candidate, LayerRecord
from lrf_core.exploration.parallel import map_side_by_side
from lrf_core.methods import Moments, Sweep
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
        self._records = records
        self._moments = moments
        self._sweeps: dict[tuple[str, str], Sweep] = {}

    def effective_kernels(self, candidates: Sequence[Candidate]) -> dict[str, Matrix]:
        """Path to the kernel `(n, c)` that stands for each candidate's chain."""

        def kernel_of(candidate: Candidate) -> Matrix:
            return self._sweep(candidate).effective_kernel(candidate.ranks)

        kernels = map_side_by_side(kernel_of, candidates, "Fitting factors")
        return {c.layer: kernel for c, kernel in zip(candidates, kernels, strict=True)}

    def model_with_kernels(self, candidates: Sequence[Candidate]) -> keras.Model:
        """A copy of the model, same layers, that answers as the factorized model will."""
        copy = splice(self._model, {})
        layers = dict(walk(copy))
        for path, kernel in self.effective_kernels(candidates).items():
            variable = layers[path].kernel
            variable.assign(kernel.reshape(variable.shape))
        return copy

    def factorized(self, candidates: Sequence[Candidate]) -> keras.Model:
        """The model with each candidate's chain in place of its layer."""

        def factors_of(candidate: Candidate) -> list[Matrix]:
            return self._sweep(candidate).factors(candidate.ranks)

        chains = {
            c.layer: methods.get(c.method).chain(self._layers[c.layer], c.ranks) for c in candidates
        }
        spliced = splice(self._model, chains)
        fitted = map_side_by_side(factors_of, candidates, "Fitting factors")
        for candidate, factors in zip(candidates, fitted, strict=True):
            chain, layer = chains[candidate.layer], self._layers[candidate.layer]
            for link, factor in zip(chain, factors, strict=True):
                link.kernel.assign(factor.reshape(link.kernel.shape))
            if layer.use_bias:
                chain[-1].bias.assign(layer.bias)
        return spliced

    def _sweep(self, candidate: Candidate) -> Sweep:
        key = candidate.layer, candidate.method
        if key not in self._sweeps:
            layer, record = self._layers[candidate.layer], self._records[candidate.layer]
            geometry = geometry_of(layer, record.positions, record.input_positions)
            method = methods.get(candidate.method)
            method.check_ranks(geometry, candidate.ranks)
            kernel = np.ascontiguousarray(kernel_matrix(layer))
            self._sweeps[key] = method.sweep(geometry, kernel, self._moments[candidate.layer])
        return self._sweeps[key]
