"""Truncated singular value decomposition, for dense layers and 1x1 convolutions.

Chain: (n > r), (r > c). In the whitened space (see `two_factors`) it has the least error of all
kernels of its rank (Eckart and Young 1936).
"""

from __future__ import annotations

import scipy.linalg

from lrf_core.methods.base import Matrix
from lrf_core.methods.two_factors import two_factor_method


def singular_vectors(whitened: Matrix) -> tuple[Matrix, Matrix]:
    """`(U, Sigma V^T)` of a matrix `(n, c)`."""
    U, values, Vt = scipy.linalg.svd(whitened, full_matrices=False)
    return U, values[:, None] * Vt


METHOD = two_factor_method("svd", singular_vectors)
