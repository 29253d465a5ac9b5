"""Errors of every truncation of a sum of rank-one terms, in one go.

A decomposition whose replacement is `W'_r = sum_{i <= r} x_i y_i^T` for every rank r, with
`x_i (n,)` and `y_i (c,)`, has of `C = W^T S W'` and `R = W'^T S W'`

    tr(F (C + C^T - R)) = 2 sum_{i <= r} (Y F W^T S X)_{ii}
                          - sum_{i, j <= r} (X^T S X * Y F Y^T)_{ij}

so that running sums give all ranks at once (`*` elementwise, `F = I` for the plain error).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lrf_core.methods.base import Matrix

Sums = NDArray[np.float64]


def explained_by_rank(
    cross: Matrix, gram: Matrix, decoder: Matrix, gradient: Matrix | None
) -> tuple[Sums, Sums]:
    """`tr(C + C^T - R)` and `tr(F (C + C^T - R))` for r = 0 ... k.

    Args:
        cross: `W^T S X`, `(c, k)`.
        gram: `X^T S X`, `(k, k)`.
        decoder: `Y`, `(k, c)`.
        gradient: `F`, `(c, c)`; None for the identity.

    Returns:
        Two arrays `(k + 1,)`.
    """
    plain = _running(cross, gram, decoder, decoder)
    if gradient is None:
        return plain, plain
    return plain, _running(cross, gram, decoder, decoder @ gradient)


def _running(cross: Matrix, gram: Matrix, decoder: Matrix, weighted: Matrix) -> Sums:
    """Args: weighted: `Y F`, `(k, c)`."""
    linear = np.einsum("kc,ck->k", weighted, cross)
    products = gram * (weighted @ decoder.T)
    # What joins a leading block with row and column i: the row up to i, and the column before i.
    rows = np.tril(products).sum(axis=1)
    columns = np.triu(products, 1).sum(axis=0)
    return np.concatenate([[0.0], np.cumsum(2 * linear - rows - columns, dtype=np.float64)])
