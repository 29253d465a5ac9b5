"""Factors of the weights alone, which know no data: the baseline that most papers start from.

Tucker, CP and Tensor-Train as `tensorly.decomposition` computes them, TT-matrices as t3f does; SVD
and QR of the kernel itself. They are judged on feature maps like all others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from lrf_core.methods.base import Decomposition, Layout, Matrix, Moments, Ranks

# What factors are fitted to.
FitTo = Literal["data", "weights"]


def decompose(layout: Layout, kernel: Matrix, moments: Moments, fit_to: FitTo) -> Decomposition:
    """Decompose a kernel once for all ranks.

    Args:
        kernel: `(n, c)`.
        moments: of the layer's inputs; factors of the weights are judged on them all the same.
        fit_to: the feature map ("data"), or the kernel alone ("weights").
    """
    if fit_to == "data":
        return layout.decompose(kernel, moments)
    return WeightDecomposition(layout, kernel, moments)


class WeightDecomposition(Decomposition):
    """Not nested: each choice of ranks is decomposed for itself."""

    def __init__(self, layout: Layout, kernel: Matrix, moments: Moments) -> None:
        super().__init__(layout.geometry, kernel, moments)
        self._layout = layout
        # One candidate is asked for its error, its outputs and its factors in turn.
        self._last: tuple[Ranks, list[Matrix], Matrix] | None = None

    def factors(self, ranks: Ranks) -> list[Matrix]:
        return self._truncated(ranks)[0]

    def effective_kernel(self, ranks: Ranks) -> Matrix:
        return self._truncated(ranks)[1]

    def restart(self, ranks: Ranks) -> Callable[[Matrix, Moments], Decomposition]:
        return partial(WeightDecomposition, self._layout)

    def _truncated(self, ranks: Ranks) -> tuple[list[Matrix], Matrix]:
        if self._last is None or self._last[0] != ranks:
            factors = self._layout.factors_of_weights(self.kernel, ranks)
            self._last = ranks, factors, self._layout.product(factors, ranks)
        return self._last[1:]
