"""How alike two feature maps are, on the same sampled rows; 1 is equal, by every metric."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lrf_core.methods.base import Matrix

Metric = Callable[[Matrix, Matrix], float]


def nmse(original: Matrix, replaced: Matrix) -> float:
    """1 minus the squared error over the squared norm, not below 0; maps `(rows, channels)`."""
    energy = float(np.sum(original**2))
    error = float(np.sum((original - replaced) ** 2))
    return max(0.0, 1.0 - error / energy) if energy > 0 else float(error == 0)


def cosine(original: Matrix, replaced: Matrix) -> float:
    """Mean cosine between rows (positions) of the two maps, not below 0; `(rows, channels)`."""
    norms = np.linalg.norm(original, axis=1) * np.linalg.norm(replaced, axis=1)
    alive = norms > 0
    if not alive.any():
        return float(np.array_equal(original, replaced))
    products = np.einsum("rc,rc->r", original, replaced)
    return max(0.0, float(np.mean(products[alive] / norms[alive])))


def cka(original: Matrix, replaced: Matrix) -> float:
    """Linear centered kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, eq. 3-5)."""
    X = original - original.mean(axis=0)
    Y = replaced - replaced.mean(axis=0)
    cross = np.linalg.norm(X.T @ Y) ** 2
    own = np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)
    return float(cross / own) if own > 0 else float(np.array_equal(X, Y))


METRICS: dict[str, Metric] = {"nmse": nmse, "cosine": cosine, "cka": cka}
