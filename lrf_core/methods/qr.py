"""Column-pivoted QR, for dense layers and 1x1 convolutions.

Chain: (n > r), (r > c). Of the whitened kernel `V` (see `two_factors`), `V P = Q R`: pivoting picks
the column farthest from the span of those before it, rank after rank (Businger and Golub 1965,
"Linear least squares solutions by Householder transformations"). The first layer encodes the span
of the first r columns of `Q`; the second is the first r rows of `R`, the pivot undone: `R P^T`.
`R` is found as the pivoted Cholesky factor of `V^T V`, which picks the same columns (Higham 1990,
"Analysis of the Cholesky decomposition of a semi-definite matrix").

Greedy columns are no match for singular vectors: at equal rank, so at equal cost, svd never has the
larger error. What QR has for it is a cheap decomposition, without iterations.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from lrf_core.methods.base import Matrix
from lrf_core.methods.two_factors import two_factor_method


def pivoted_columns(gram: Matrix, count: int) -> tuple[Matrix, Matrix]:
    """`Z = P R_k^-1`, `(c, k)`, and `T = R P^T`, `(k, c)`, for `V^T V`, `(c, c)`.

    `k` is `count`, or less where the columns left over are zero except rounding.
    """
    (pstrf,) = scipy.linalg.get_lapack_funcs(("pstrf",), (gram,))
    factor, order, rank, _ = pstrf(gram)
    kept, order = min(count, int(rank)), order - 1
    R = np.triu(factor)[:kept]
    Z = np.zeros((len(gram), kept), gram.dtype)
    Z[order[:kept]] = scipy.linalg.solve_triangular(R[:, :kept], np.eye(kept, dtype=gram.dtype))
    return Z, R[:, np.argsort(order)]


METHOD = two_factor_method("qr", pivoted_columns, exploring_cost=(9.2e-8, 0.56, 1.95))
