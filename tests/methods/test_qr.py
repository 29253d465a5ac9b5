"""Column-pivoted QR, and what it shares with the SVD."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core import methods
from lrf_core.methods import Geometry, Layout, Moments
from lrf_core.methods.qr import pivoted_columns


def form_of(name: str, n: int, c: int) -> Layout:
    return methods.get(name).layout(Geometry((n, c), (), bias=False))


def moments_of(data: np.ndarray, gradient: np.ndarray | None = None) -> Moments:
    rows = len(data)
    return Moments(data.T @ data / rows, gradient, data[:32].astype(np.float32), rows)


def test_the_pivot_is_undone() -> None:
    kernel = np.random.default_rng(0).normal(size=(9, 6)) * [1, 5, 2, 9, 0.1, 3]
    mixing, coordinates = pivoted_columns(kernel.T @ kernel, 6)
    basis = kernel @ mixing
    np.testing.assert_allclose(basis @ coordinates, kernel, atol=1e-12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-10)


def test_without_data_rank_r_keeps_the_r_leading_columns_as_they_are() -> None:
    """The span of Q's first columns is that of the columns that pivoting has picked."""
    kernel = np.random.default_rng(1).normal(size=(20, 5)) * [1, 50, 3, 9, 0.1]
    blind = Moments(np.eye(20), None, np.zeros((1, 20), np.float32), 10**6)
    replaced = form_of("qr", 20, 5).decompose(kernel, blind).effective_kernel((2,))
    kept = np.isclose(replaced, kernel, atol=1e-9).all(axis=0)
    assert list(kept) == [False, True, False, True, False]


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (17, 17)])
def test_svd_is_never_worse_at_equal_rank(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    n, c = shape
    kernel = rng.normal(size=shape)
    slopes = rng.normal(size=(50, c)) * 0.8 ** np.arange(c)
    moments = moments_of(rng.normal(size=(60, n)) * 0.9 ** np.arange(n), slopes.T @ slopes / 50)
    second, weight = moments.regularized_second(), moments.output_weight(c)
    sweeps = {name: form_of(name, n, c).decompose(kernel, moments) for name in ("svd", "qr")}

    def error(name: str, rank: int) -> float:
        D = kernel - sweeps[name].effective_kernel((rank,))
        return float(np.vdot(weight, D.T @ second @ D))

    for rank in range(1, min(shape)):
        assert error("svd", rank) <= error("qr", rank) * (1 + 1e-9)


def test_small_ranks_are_offered_where_the_grid_is_wide() -> None:
    ranks = [rank for (rank,) in form_of("qr", 4096, 1024).candidate_ranks(16)]
    assert ranks[:6] == [1, 2, 4, 8, 16, 32]
    assert ranks == sorted(set(ranks))
