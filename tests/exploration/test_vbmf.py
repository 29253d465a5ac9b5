"""VBMF finds the rank that is there; its closed form is the minimum of the free energy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.artifacts import Candidate, Cost
from lrf_core.errors import GoalError
from lrf_core.exploration.resources import Layer, OptionTable, options_of
from lrf_core.exploration.vbmf import evb, layer_ranks, noise_variance, vbmf


def noisy(short: int, long: int, rank: int, noise: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=(short, rank)) @ draw.normal(size=(rank, long))
    return signal + noise * draw.normal(size=(short, long))


@pytest.mark.parametrize("shape", [(20, 20), (20, 300), (300, 20), (64, 576)])
@pytest.mark.parametrize("seed", range(3))
def test_noise_has_rank_zero(shape: tuple[int, int], seed: int) -> None:
    noise = 3.0 * np.random.default_rng(seed).normal(size=shape)
    found = evb(noise)
    assert found.rank == 0
    assert found.noise_variance == pytest.approx(np.mean(noise**2), rel=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(30, 60), st.integers(60, 200), st.integers(0, 99))
def test_the_rank_under_small_noise_is_found(rank: int, short: int, long: int, seed: int) -> None:
    matrix = noisy(short, long, rank, 0.1, seed)
    found = evb(matrix)
    assert found.rank == rank
    assert found.noise_variance == pytest.approx(0.01, rel=0.25)
    assert evb(matrix.T).rank == rank
    # What is left after shrinking is nearer to the signal than what was seen.
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert (found.values < singular[:rank]).all()


@settings(max_examples=30)
@given(st.integers(0, 8), st.floats(-9, 9), st.integers(0, 99))
def test_scale_does_not_matter(rank: int, exponent: float, seed: int) -> None:
    matrix, scale = noisy(24, 70, rank, 0.5, seed), 10.0**exponent
    plain, scaled = evb(matrix), evb(scale * matrix)
    assert scaled.rank == plain.rank
    assert scaled.noise_variance == pytest.approx(scale**2 * plain.noise_variance, rel=1e-3)


def test_matrices_without_noise() -> None:
    assert evb(np.zeros((4, 9))).rank == 0
    assert evb(noisy(20, 40, 3, 0.0, seed=0)).rank == 3


def component_free_energy(gamma: float, short: int, long: int, variance: float) -> float:
    """Least free energy of one component, twice, by numerical search over its posterior and prior.

    The free energy of Nakajima et al. (2013) for a diagonal posterior, `q(a) = N(mu_a, s_a I)`,
    `q(b) = N(mu_b, s_b I)` with priors `N(0, c_a I)`, `N(0, c_b I)`; less the part of an empty one.
    """

    def energy(free: np.ndarray) -> float:
        mu_a, mu_b = free[:2]
        s_a, s_b, c_a, c_b = np.exp(free[2:])
        power_a, power_b = mu_a**2 + long * s_a, mu_b**2 + short * s_b
        return float(
            long * np.log(c_a / s_a)
            + short * np.log(c_b / s_b)
            + power_a / c_a
            + power_b / c_b
            - (short + long)
            + (power_a * power_b - 2 * gamma * mu_a * mu_b) / variance
        )

    starts = [
        np.array([mu, mu, *np.log([variance / gamma] * 2), *np.log([gamma / long, gamma / short])])
        for mu in (math.sqrt(gamma), 0.3 * math.sqrt(gamma))
    ]
    options = {"maxiter": 20000, "maxfev": 40000, "xatol": 1e-10, "fatol": 1e-12, "adaptive": True}
    found = [
        scipy.optimize.minimize(energy, start, method="Nelder-Mead", options=options)
        for start in starts
    ]
    return min(0.0, *(result.fun for result in found))


def test_the_noise_variance_has_the_least_free_energy() -> None:
    """Over a grid of variances, no naive minimisation of the free energy finds a lower one."""
    short, long = 5, 9
    singular = np.linalg.svd(noisy(short, long, 2, 0.4, seed=4), compute_uv=False)

    def naive(variance: float) -> float:
        fixed = short * long * math.log(2 * math.pi * variance) + (singular**2).sum() / variance
        return fixed + sum(component_free_energy(g, short, long, variance) for g in singular)

    best = noise_variance(singular, long)
    at_best = naive(best)
    for factor in (0.25, 0.5, 0.8, 1.25, 2.0, 4.0):
        assert at_best < naive(best * factor)


def test_components_are_kept_exactly_where_that_lowers_the_free_energy() -> None:
    short, long = 6, 15
    found = evb(noisy(short, long, 2, 0.5, seed=1))
    singular = np.linalg.svd(noisy(short, long, 2, 0.5, seed=1), compute_uv=False)
    gains = [component_free_energy(g, short, long, found.noise_variance) for g in singular]
    assert [gain < -1e-6 for gain in gains] == [i < found.rank for i in range(short)]


def space(*candidates: tuple[str, tuple[int, ...], int]) -> OptionTable:
    found = [
        Candidate(
            layer="conv" if method == "tucker" else "dense",
            method=method,
            ranks=ranks,
            cost=Cost(params=params, macs=params),
            error=0.1,
            similarity=0.9,
            sensitivity=0.1,
        )
        for method, ranks, params in candidates
    ]
    layers = [Layer(name, Cost(params=999, macs=999)) for name in ("conv", "dense")]
    return options_of(found, layers, Cost(params=2000, macs=2000))


def test_the_nearest_ranks_that_are_not_below_are_taken() -> None:
    options = space(
        ("tucker", (4, 4), 40),
        ("tucker", (8, 4), 60),
        ("tucker", (4, 8), 61),
        ("tucker", (8, 8), 80),
        ("svd", (2,), 20),
        ("svd", (4,), 40),
    )
    wanted = {"conv": (5, 3), "dense": (5,)}
    conv, dense = options.choices(vbmf(options, wanted.__getitem__))
    assert conv.candidate is not None
    assert conv.candidate.ranks == (8, 4)
    assert dense.candidate is None  # nothing that is smaller than the layer has rank 5


def test_vbmf_needs_its_methods() -> None:
    with pytest.raises(GoalError, match=r"add tucker and svd to explore\.methods"):
        vbmf(space(("cp", (4,), 40)), lambda layer: (1,))


def test_ranks_of_a_convolution_are_those_of_its_unfoldings() -> None:
    draw = np.random.default_rng(0)
    first, last = draw.normal(size=(32, 3)), draw.normal(size=(5, 48))
    core = draw.normal(size=(3, 3, 3, 5))
    kernel = np.einsum("hwab,ia,bo->hwio", core, first, last)
    kernel += 0.05 * draw.normal(size=kernel.shape)
    assert layer_ranks(kernel.reshape(-1, 48), kernel.shape) == (3, 5)
    assert layer_ranks(kernel[0, 0], (1, 1, 32, 48)) == (3,)
    assert layer_ranks(draw.normal(size=(30, 40)), (30, 40)) == (1,)
