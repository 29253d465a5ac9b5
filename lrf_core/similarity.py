"""How alike two feature maps are, on the same sampled rows; 1 is equal, by every metric.

Maps are `(rows, channels)`, a row for each sampled position. Every metric lies between 0 and 1; of
those that can be negative (cosine, Pearson, SSIM) what is below 0 counts as 0. A metric that looks
at neighbourhoods says the side of the windows that it needs: then the rows of a 2-D map come as
whole windows, one after the other, row-major within each; all other metrics take those rows as
well as any.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrf_core.errors import SpecError

Map = NDArray[np.float64]

# scikit-image's default; also the smallest map of the common classifiers at 224 pixels.
SSIM_SIDE = 7
# Wang et al. 2004, section III.
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Similarity:
    """A metric of feature maps.

    Attributes:
        name: as users write it.
        compare: the original's map and the replacement's to a number between 0 and 1.
        window: side of the windows of positions it looks at; 1 for single positions.
        otherwise: the metric in its place where a layer's maps have no such windows.
    """

    name: str
    compare: Callable[[Any, Any], float]
    window: int = 1
    otherwise: str = ""


def nmse(original: Map, replaced: Map) -> float:
    """1 minus the squared error over the squared norm, not below 0.

    Does not change when both maps are scaled or rotated alike.
    """
    energy = float(np.sum(original**2))
    error = float(np.sum((original - replaced) ** 2))
    return max(0.0, 1.0 - error / energy) if energy > 0 else float(error == 0)


def cosine(original: Map, replaced: Map) -> float:
    """Mean cosine between rows (positions) of the two maps.

    Does not change when rows are scaled. Rows where both maps are zero are alike, those where one
    is zero are not.
    """
    norms = np.linalg.norm(original, axis=1), np.linalg.norm(replaced, axis=1)
    alive = (norms[0] > 0) & (norms[1] > 0)
    both_dead = (norms[0] == 0) & (norms[1] == 0)
    products = np.einsum("rc,rc->r", original[alive], replaced[alive])
    total = float(np.sum(products / norms[0][alive] / norms[1][alive])) + float(both_dead.sum())
    return _within(total / len(original))


def cka(original: Map, replaced: Map) -> float:
    """Linear centered kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, eq. 3-5).

    Does not change when a map is shifted, scaled as a whole or rotated.
    """
    X = original - original.mean(axis=0)
    Y = replaced - replaced.mean(axis=0)
    cross = np.linalg.norm(X.T @ Y) ** 2
    own = np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)
    return _within(float(cross / own)) if own > 0 else float(np.array_equal(X, Y))


def pearson(original: Map, replaced: Map) -> float:
    """Pearson's correlation of all values of the two maps.

    Does not change when a map is scaled by a positive number, or shifted, as a whole.
    """
    x = original - original.mean()
    y = replaced - replaced.mean()
    norms = float(np.linalg.norm(x)) * float(np.linalg.norm(y))
    return _within(float(np.sum(x * y)) / norms) if norms > 0 else float(np.array_equal(x, y))


def ssim(original: Map, replaced: Map) -> float:
    """Mean structural similarity of windows of 7x7 positions (Wang et al. 2004, eq. 13).

    Within each window and channel all positions weigh alike; the dynamic range `L` is that of both
    maps together. Symmetric; does not change when both maps are scaled alike.

    Args:
        original, replaced: `(windows * 49, channels)`.
    """
    least = min(float(original.min()), float(replaced.min()))
    span = max(float(original.max()), float(replaced.max())) - least
    if span == 0:
        return 1.0
    # In units of L, so that C1 = K1^2 and C2 = K2^2.
    x = original.reshape(-1, SSIM_SIDE**2, original.shape[-1]) / span
    y = replaced.reshape(-1, SSIM_SIDE**2, replaced.shape[-1]) / span
    mean_x, mean_y = x.mean(axis=1), y.mean(axis=1)
    centered_x, centered_y = x - mean_x[:, None], y - mean_y[:, None]
    variances = np.mean(centered_x**2, axis=1) + np.mean(centered_y**2, axis=1)
    covariance = np.mean(centered_x * centered_y, axis=1)
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    structure = (2 * covariance + _K2**2) / (variances + _K2**2)
    return _within(float(np.mean(luminance * structure)))


_registry: dict[str, Similarity] = {}


def register(metric: Similarity) -> None:
    """Add a metric. Raises ValueError when the name is taken."""
    if metric.name in _registry:
        raise ValueError(f"a similarity named '{metric.name}' is registered already")
    _registry[metric.name] = metric


def names() -> tuple[str, ...]:
    """Names of the registered metrics, in the order they were registered."""
    return tuple(_registry)


def get(name: str) -> Similarity:
    """The metric of this name. Raises SpecError with the nearest name."""
    if name not in _registry:
        near = difflib.get_close_matches(name, _registry, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(_registry)}"
        raise SpecError(f"unknown similarity '{name}' ({hint})")
    return _registry[name]


def _within(value: float) -> float:
    return min(max(value, 0.0), 1.0)


for _metric in (
    Similarity("nmse", nmse),
    Similarity("cosine", cosine),
    Similarity("cka", cka),
    Similarity("pearson", pearson),
    Similarity("ssim", ssim, window=SSIM_SIDE, otherwise="nmse"),
):
    register(_metric)
