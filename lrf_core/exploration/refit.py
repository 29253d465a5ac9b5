"""Fit each layer again to what it really sees once the layers before it are compressed.

Errors of factorized layers add up along the network. Layer by layer, in order, the kernel is
replaced by the least-squares map from the layer's input in the compressed model to its output in
the original (Zhang et al. 2016, arXiv 1505.06798, section 3.2, "asymmetric reconstruction"), and
decomposed again at the same ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from lrf_core.artifacts import Candidate
from lrf_core.calibration.memory import DEFAULT_MEMORY_BYTES
from lrf_core.calibration.paired import PairedCalibration, PairedMoments
from lrf_core.console.progress import track
from lrf_core.exploration.factorize import Factorizer, Fitted
from lrf_core.exploration.parallel import one_blas_thread
from lrf_core.methods import Moments
from lrf_core.methods.base import Matrix
from lrf_core.methods.moments import MAX_FULL_WIDTH
from lrf_core.models.precision import in_float32
from lrf_core.models.splice import splice
from lrf_core.models.trace import walk


class Refit:
    """Refits plans of a model, one after the other.

    Args:
        factorizer: of the layers of `model`.
        layers: path to layer of `model`, of all that any plan may replace.
        samples: calibration samples, `(samples, *input_shape)`.
        memory_bytes: limits the batches.
    """

    def __init__(
        self,
        model: keras.Model,
        factorizer: Factorizer,
        layers: Mapping[str, keras.Layer],
        samples: NDArray[Any],
        *,
        batch_size: int | None,
        seed: int,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._factorizer = factorizer
        narrow = {path: layer for path, layer in layers.items() if _inputs(layer) <= MAX_FULL_WIDTH}
        self._pairs = PairedCalibration(
            model, narrow, samples, batch_size=batch_size, seed=seed, memory_bytes=memory_bytes
        )
        self._copy = in_float32(splice(model, {}))
        self._layers = {path: layer for path, layer in walk(self._copy) if path in narrow}

    def in_order(self, fitted: Mapping[Candidate, Fitted]) -> dict[Candidate, Fitted]:
        """Better factors for the same candidates; ranks and costs stay.

        Takes one pass over the samples per candidate. Layers too wide for a full second moment keep
        their factors.

        Args:
            fitted: one per layer, in the order of the model's layers.
        """
        self._factorizer.assign_kernels(self._copy, fitted)
        refitted = dict(fitted)
        narrow = [candidate for candidate in fitted if candidate.layer in self._layers]
        for candidate in track(narrow, "Refitting layers"):
            paired = self._pairs.moments(self._copy, candidate.layer)
            with one_blas_thread():
                refitted[candidate] = self._refitted(candidate, fitted[candidate], paired)
            variable = self._layers[candidate.layer].kernel
            variable.assign(refitted[candidate].kernel.reshape(variable.shape))
        return refitted

    def _refitted(self, candidate: Candidate, fitted: Fitted, paired: PairedMoments) -> Fitted:
        """Behind compressed layers."""
        alone = self._factorizer.moments(candidate.layer)
        moments = replace(alone, second=paired.second, rows_seen=paired.rows_seen)
        kernel = _mapped(self._factorizer.kernel(candidate.layer), paired, moments)
        return Fitted.of(fitted.restart(kernel, moments), candidate)


def _inputs(layer: keras.Layer) -> int:
    return math.prod(layer.kernel.shape[:-1])


def _mapped(kernel: Matrix, paired: PairedMoments, moments: Moments) -> Matrix:
    """The ridge regression from inputs now to outputs then, drawn to the kernel there was."""
    second = moments.regularized_second()
    ridge = np.diag(second - paired.second)[:, None]
    return np.asarray(
        scipy.linalg.solve(second, paired.cross + ridge * kernel, assume_a="pos"), np.float64
    )
