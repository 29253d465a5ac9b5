"""Fit each layer again to what it really sees once the layers before it are compressed.

Errors of factorized layers add up along the network. Layer by layer, in order, the kernel is
replaced by the least-squares map from the layer's input in the compressed model to its output in
the original (Zhang et al. 2016, arXiv 1505.06798, section 3.2, "asymmetric reconstruction"), and
decomposed again at the same ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from lrf_core.artifacts import Candidate
from lrf_core.calibration.paired import PairedCalibration, PairedMoments
from lrf_core.exploration.factorize import Factorizer
from lrf_core.exploration.parallel import one_blas_thread
from lrf_core.methods import Moments
from lrf_core.methods.base import Matrix
from lrf_core.methods.moments import MAX_FULL_WIDTH
from lrf_core.models.precision import in_float32
from lrf_core.models.trace import walk
from lrf_core.progress import track


def refit_in_order(
    factorizer: Factorizer,
    model: keras.Model,
    candidates: Sequence[Candidate],
    samples: NDArray[Any],
    *,
    batch_size: int | None,
    seed: int,
) -> None:
    """Give `factorizer` better factors for these candidates; ranks and costs stay.

    Takes one pass over the samples per candidate. Layers too wide for a full second moment keep
    their factors.

    Args:
        candidates: one per layer, in the order of the model's layers.
        samples: calibration samples, `(samples, *input_shape)`.
    """
    narrow = [c for c in candidates if len(factorizer.kernel(c.layer)) <= MAX_FULL_WIDTH]
    layers = {path: layer for path, layer in walk(model) if path in {c.layer for c in narrow}}
    pairs = PairedCalibration(model, layers, samples, batch_size=batch_size, seed=seed)
    copy = in_float32(factorizer.model_with_kernels(candidates))
    copied = dict(walk(copy))
    for candidate in track(narrow, "Refitting layers"):
        paired = pairs.moments(copy, candidate.layer)
        with one_blas_thread():
            refitted = _refitted(factorizer, candidate, paired)
        variable = copied[candidate.layer].kernel
        variable.assign(refitted.reshape(variable.shape))


def _refitted(factorizer: Factorizer, candidate: Candidate, paired: PairedMoments) -> Matrix:
    """The effective kernel behind compressed layers."""
    moments = replace(
        factorizer.moments(candidate.layer), second=paired.second, rows_seen=paired.rows_seen
    )
    kernel = _mapped(factorizer.kernel(candidate.layer), paired, moments)
    factorizer.refit(candidate, kernel, moments)
    return factorizer.effective_kernel(candidate)


def _mapped(kernel: Matrix, paired: PairedMoments, moments: Moments) -> Matrix:
    """The ridge regression from inputs now to outputs then, drawn to the kernel there was."""
    second = moments.regularized_second()
    ridge = np.diag(second - paired.second)[:, None]
    return np.asarray(
        scipy.linalg.solve(second, paired.cross + ridge * kernel, assume_a="pos"), np.float64
    )
