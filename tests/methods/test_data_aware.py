"""Factors are fitted to the feature map: better than factors of the weights, on correlated data."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core import methods
from lrf_core.methods import Geometry, Layout, Moments


def correlated(n: int, c: int, *, rows: int = 4000) -> tuple[np.ndarray, Moments, Moments]:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(rows, n)) @ (rng.normal(size=(n, n)) * 0.5 ** np.arange(n)[:, None])
    kernel = rng.normal(size=(n, c))
    seen = Moments(data.T @ data / rows, None, data[:64].astype(np.float32), rows)
    blind = Moments(np.eye(n), None, data[:64].astype(np.float32), rows)
    return kernel, seen, blind


def only_form(name: str, shape: tuple[int, ...]) -> Layout:
    (layout,) = methods.get(name).layouts(Geometry(shape, (), bias=False))
    return layout


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
    layout = only_form(name, shape)
    aware = layout.decompose(kernel, seen).effective_kernel(ranks)
    plain = layout.decompose(kernel, blind).effective_kernel(ranks)
    assert error(kernel, aware, seen.second) < 0.7 * error(kernel, plain, seen.second)
    assert error(kernel, plain, blind.second) <= error(kernel, aware, blind.second)


def test_svd_is_the_best_kernel_of_its_rank() -> None:
    """Against the closed form of Eckart and Young in the whitened space."""
    kernel, seen, _ = correlated(16, 12)
    decomposition = only_form("svd", (16, 12)).decompose(kernel, seen)
    values, vectors = np.linalg.eigh(seen.regularized_second())
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    tail = np.linalg.svd(root @ kernel, compute_uv=False)[5:]
    found = error(kernel, decomposition.effective_kernel((5,)), seen.regularized_second())
    np.testing.assert_allclose(found, np.sum(tail**2), rtol=1e-6)


def test_a_kernel_of_low_rank_is_found_exactly() -> None:
    rng = np.random.default_rng(1)
    core = rng.normal(size=(9, 2, 3))
    kernel = np.einsum(
        "kab,ia,ob->kio", core, rng.normal(size=(5, 2)), rng.normal(size=(7, 3))
    ).reshape(45, 7)
    data = rng.normal(size=(400, 45))
    moments = Moments(data.T @ data / 400, None, data[:8].astype(np.float32), 400)
    decomposition = only_form("tucker", (3, 3, 5, 7)).decompose(kernel, moments)
    np.testing.assert_allclose(decomposition.effective_kernel((2, 3)), kernel, atol=1e-6)


def test_directions_without_data_keep_the_weights() -> None:
    """Dead inputs have no moments; the factorization must stay finite and exact at full rank."""
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(36, 6))
    second = np.diag([0.0] * 18 + [1.0] * 18)
    moments = Moments(second, None, np.zeros((4, 36), np.float32), 10)
    decomposition = only_form("tucker", (3, 3, 4, 6)).decompose(kernel, moments)
    np.testing.assert_allclose(decomposition.effective_kernel((4, 6)), kernel, atol=1e-6)
    assert np.isfinite(decomposition.effective_kernel((1, 1))).all()


@pytest.mark.parametrize("name", ["svd", "qr", "t3f"])
def test_a_root_stands_for_the_second_moment_it_is_the_root_of(name: str) -> None:
    """Layers with more inputs than rows were seen."""
    rng = np.random.default_rng(3)
    kernel, rows = rng.normal(size=(60, 8)), rng.normal(size=(20, 60)).astype(np.float32)
    root = rows.astype(np.float64) / np.sqrt(len(rows))
    slopes = rng.normal(size=(30, 8))
    wide = Moments(root, slopes.T @ slopes / 30, rows, 20)
    full = Moments(root.T @ root, wide.gradient, rows, 20)
    for layout in methods.get(name).layouts(Geometry((60, 8), (), bias=False)):
        sweeps = [layout.decompose(kernel, moments) for moments in (wide, full)]
        for ranks in layout.candidate_ranks(4)[:3]:
            found = [decomposition.explained_energy(ranks) for decomposition in sweeps]
            # T3F's descent is iterative, and sees the two in another order of operations.
            np.testing.assert_allclose(*found, rtol=0.05 if name == "t3f" else 1e-8)


def test_cp_of_a_root_is_near_that_of_the_full_moment() -> None:
    rng = np.random.default_rng(4)
    kernel, rows = rng.normal(size=(72, 6)), rng.normal(size=(40, 72)).astype(np.float32)
    root = rows.astype(np.float64) / np.sqrt(len(rows))
    wide, full = (Moments(second, None, rows, 40) for second in (root, root.T @ root))
    layout = methods.get("cp").layout(Geometry((3, 3, 8, 6), (), bias=False), "merged")
    for ranks in layout.candidate_ranks(4):
        found = [
            layout.decompose(kernel, moments).explained_energy(ranks)[0] for moments in (wide, full)
        ]
        np.testing.assert_allclose(*found, rtol=0.02)


def test_what_is_explained_is_what_the_effective_kernel_explains() -> None:
    """Every method's closed form, against the two moments of its effective kernel."""
    rng = np.random.default_rng(5)
    slopes = rng.normal(size=(30, 8))
    for shape in ((24, 8), (6, 8), (3, 3, 4, 8), (3, 5, 8)):
        kernel, seen, _ = correlated(int(np.prod(shape[:-1])), shape[-1], rows=200)
        moments = Moments(seen.second, slopes.T @ slopes / 30, seen.rows, 200)
        geometry = Geometry(shape, (), bias=False)
        layouts = [
            layout for name in methods.names() for layout in methods.get(name).layouts(geometry)
        ]
        for layout in layouts:
            decomposition = layout.decompose(kernel, moments)
            for ranks in (*layout.candidate_ranks(3)[:-1], layout.full_ranks):
                replaced = decomposition.effective_kernel(ranks)
                weighted = moments.second @ replaced
                kept = kernel.T @ weighted + weighted.T @ kernel - replaced.T @ weighted
                expected = (np.trace(kept), np.vdot(moments.gradient, kept))
                np.testing.assert_allclose(
                    decomposition.explained_energy(ranks), expected, rtol=1e-6, atol=1e-9
                )
