"""Factors are fitted to the feature map: better than factors of the weights, on correlated data."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core import methods
from lrf_core.methods import Form, Geometry, Moments


def correlated(n: int, c: int, *, rows: int = 4000) -> tuple[np.ndarray, Moments, Moments]:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(rows, n)) @ (rng.normal(size=(n, n)) * 0.5 ** np.arange(n)[:, None])
    kernel = rng.normal(size=(n, c))
    seen = Moments(data.T @ data / rows, None, data[:64].astype(np.float32), rows)
    blind = Moments(np.eye(n), None, data[:64].astype(np.float32), rows)
    return kernel, seen, blind


def only_form(name: str, shape: tuple[int, ...]) -> Form:
    (form,) = methods.get(name).forms(Geometry(shape, (), bias=False))
    return form


def error(kernel: np.ndarray, replaced: np.ndarray, second: np.ndarray) -> float:
    return float(np.trace((kernel - replaced).T @ second @ (kernel - replaced)))


@pytest.mark.parametrize(
    ("name", "shape", "ranks"),
    [("svd", (16, 12), (4,)), ("tucker", (3, 3, 4, 8), (2, 4)), ("tucker", (3, 4, 8), (4, 3))],
)
def test_fitting_to_the_data_beats_fitting_to_the_weights(
    name: str, shape: tuple[int, ...], ranks: tuple[int, ...]
) -> None:
    kernel, seen, blind = correlated(int(np.prod(shape[:-1])), shape[-1])
    form = only_form(name, shape)
    aware = form.sweep(kernel, seen).effective_kernel(ranks)
    plain = form.sweep(kernel, blind).effective_kernel(ranks)
    assert error(kernel, aware, seen.second) < 0.7 * error(kernel, plain, seen.second)
    assert error(kernel, plain, blind.second) <= error(kernel, aware, blind.second)


def test_svd_is_the_best_kernel_of_its_rank() -> None:
    """Against the closed form of Eckart and Young in the whitened space."""
    kernel, seen, _ = correlated(16, 12)
    sweep = only_form("svd", (16, 12)).sweep(kernel, seen)
    values, vectors = np.linalg.eigh(seen.regularized_second())
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    tail = np.linalg.svd(root @ kernel, compute_uv=False)[5:]
    found = error(kernel, sweep.effective_kernel((5,)), seen.regularized_second())
    np.testing.assert_allclose(found, np.sum(tail**2), rtol=1e-6)


def test_a_kernel_of_low_rank_is_found_exactly() -> None:
    rng = np.random.default_rng(1)
    core = rng.normal(size=(9, 2, 3))
    kernel = np.einsum(
        "kab,ia,ob->kio", core, rng.normal(size=(5, 2)), rng.normal(size=(7, 3))
    ).reshape(45, 7)
    data = rng.normal(size=(400, 45))
    moments = Moments(data.T @ data / 400, None, data[:8].astype(np.float32), 400)
    sweep = only_form("tucker", (3, 3, 5, 7)).sweep(kernel, moments)
    np.testing.assert_allclose(sweep.effective_kernel((2, 3)), kernel, atol=1e-6)


def test_directions_without_data_keep_the_weights() -> None:
    """Dead inputs have no moments; the factorization must stay finite and exact at full rank."""
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(36, 6))
    second = np.diag([0.0] * 18 + [1.0] * 18)
    moments = Moments(second, None, np.zeros((4, 36), np.float32), 10)
    sweep = only_form("tucker", (3, 3, 4, 6)).sweep(kernel, moments)
    np.testing.assert_allclose(sweep.effective_kernel((4, 6)), kernel, atol=1e-6)
    assert np.isfinite(sweep.effective_kernel((1, 1))).all()


def test_wide_layers_work_from_the_diagonal() -> None:
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(50, 6))
    moments = Moments(rng.uniform(0.1, 2, 50), np.eye(6), rng.normal(size=(9, 50)), 100)
    sweep = only_form("svd", (50, 6)).sweep(kernel, moments)
    np.testing.assert_allclose(sweep.effective_kernel((6,)), kernel, atol=1e-9)
    cross, replaced = sweep.output_moments((6,))
    np.testing.assert_allclose(cross, replaced, atol=1e-9)
