"""Ranks by variational Bayesian matrix factorization: the analytic, global solution.

Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed variational
Bayesian matrix factorization", JMLR 14 (2013): empirical variational Bayes (EVB), the noise
variance estimated too. A matrix `V`, `(L, M)` with `L <= M`, is taken for a product of low rank
plus Gaussian noise of variance `sigma^2`; of its singular values those up to
`sigma sqrt(M x_)` are noise. `alpha = L / M`, `x_ = (1 + t_)(1 + alpha / t_)`, `t_` the zero of
`Phi(t) + Phi(t / alpha)` with `Phi(z) = log(z + 1) / z - 1/2`; see `noise_variance` for `sigma`.

For convolutions the ranks are those of the unfoldings along input and output channels (Kim et al.,
arXiv 1511.06530), for matrices the rank of the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize

from lrf_core import methods
from lrf_core.console.progress import track
from lrf_core.errors import GoalError
from lrf_core.exploration.resources import Indices, OptionTable, Vector

Ranks = tuple[int, ...]

# Noise variances tried between two of the points where the free energy has a kink.
_TRIED = 9
# Terms of the free energy evaluated at once: 32 MiB of doubles.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Evb:
    """The EVB solution for one matrix.

    Attributes:
        rank: how many components are more than noise.
        noise_variance: `sigma^2`, of one entry.
        values: the singular values of the low-rank part, `(rank,)`, shrunk for the noise in them.
    """

    rank: int
    noise_variance: float
    values: Vector


def evb(matrix: Vector) -> Evb:
    """The global EVB solution for a matrix, whichever of its sides is longer."""
    short, long = sorted(matrix.shape)
    singular = scipy.linalg.svdvals(matrix)
    if not singular.max(initial=0.0) > 0:
        return Evb(0, 0.0, np.zeros(0))
    variance = noise_variance(singular, long)
    signal = singular[singular > math.sqrt(variance * long * _least_signal(short / long))]
    return Evb(len(signal), variance, _shrunk(signal, short, long, variance))


def noise_variance(singular: Vector, long: int) -> float:
    """The noise variance `sigma^2` of least free energy, for the singular values of a matrix.

    The global minimum over `sigma^2` of `Omega = sum_h psi(gamma_h^2 / (M sigma^2))`, where
    `psi(x) = x - log x`, and for `x > x_` also `+ log(t + 1) + alpha log(t / alpha + 1) - t` with
    `t = (x - (1 + alpha) + sqrt((x - (1 + alpha))^2 - 4 alpha)) / 2` (Theorem on the estimator
    of the noise variance). Omega has a kink wherever a component passes the threshold, and may
    have a minimum between any two: all intervals are searched, the best is refined.

    Args:
        singular: all singular values, `(L,)`, falling.
        long: the longer side of the matrix, `M`.
    """
    short = len(singular)
    alpha = short / long
    energies = singular**2 / long
    kinks = energies / _least_signal(alpha)
    # At most this many components are signal; the others bound the variance from below.
    most = min(math.ceil(short / (1 + alpha)) - 1, short - 1)
    # Without any noise the free energy has no lower bound; doubles have some.
    floor = float(energies[0]) * float(np.finfo(np.float64).eps) ** 2
    low = max(float(kinks[most]), float(energies[most:].mean()), floor)
    high = max(float(energies.mean()), low)
    inner = np.log(np.unique(kinks[(kinks > low) & (kinks < high)]))
    edges = np.concatenate([[math.log(low)], inner, [math.log(high)]])
    steps = np.linspace(0, 1, _TRIED)
    tried = np.unique((edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel())
    batch = max(_AT_ONCE // short, 1)
    values = np.concatenate(
        [
            _free_energy(tried[start : start + batch], energies, alpha)
            for start in range(0, len(tried), batch)
        ]
    )
    best = int(values.argmin())
    around = tried[max(best - 1, 0)], tried[min(best + 1, len(tried) - 1)]
    if around[0] == around[1]:
        return math.exp(tried[best])
    refined = scipy.optimize.minimize_scalar(
        lambda log_variance: float(_free_energy(np.array([log_variance]), energies, alpha)[0]),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-10},
    )
    return math.exp(refined.x if refined.fun < values[best] else tried[best])


def layer_ranks(kernel: Vector, kernel_shape: tuple[int, ...]) -> Ranks:
    """`(r1, r2)` of the input and the output channels, or `(r,)` where the kernel is a matrix.

    At least 1 each: a layer of noise alone still has to be there.

    Args:
        kernel: `(n, c)`.
        kernel_shape: `(*spatial, inputs, outputs)`.
    """
    *spatial, inputs, outputs = kernel_shape
    if math.prod(spatial) == 1:
        return (max(evb(kernel).rank, 1),)
    by_inputs = kernel.reshape(-1, inputs, outputs).transpose(1, 0, 2).reshape(inputs, -1)
    return max(evb(by_inputs).rank, 1), max(evb(kernel).rank, 1)


def vbmf(options: OptionTable, ranks_of: Callable[[str], Ranks]) -> Indices:
    """Per layer the Tucker or SVD candidate with the nearest ranks that are not below its own.

    A layer without one, for it would have as many parameters as the layer, stays as it is.

    Args:
        ranks_of: the ranks of a layer, `layer_ranks`.

    Raises:
        GoalError: no layer has a candidate of these methods.
    """
    offered: dict[int, list[tuple[int, Ranks]]] = {}
    for row, candidate in enumerate(options.candidates):
        if candidate and methods.get(candidate.method).has_vbmf_ranks:
            offered.setdefault(int(options.owner[row]), []).append((row, candidate.ranks))
    if not offered:
        raise GoalError(
            "policy vbmf chooses among Tucker and SVD candidates, and there are none; add tucker "
            "and svd to explore.methods and explore again, or use the knapsack policy"
        )
    rows = options.unchanged()
    for layer, own in track(offered.items(), "Ranks by VBMF"):
        wanted = ranks_of(options.layers[layer].name)
        near = [
            (sum(offered_ranks) - sum(wanted), row)
            for row, offered_ranks in own
            if _cover(offered_ranks, wanted)
        ]
        if near:
            rows[layer] = min(near)[1]
    return rows


def _cover(offered: Ranks, wanted: Ranks) -> bool:
    if len(offered) != len(wanted):
        return False
    return all(has >= rank for has, rank in zip(offered, wanted, strict=True))


def _least_signal(alpha: float) -> float:
    """`x_`: up to which `gamma^2 / (M sigma^2)` a component is noise."""

    def falling(tau: float) -> float:
        return _phi(tau) + _phi(tau / alpha)

    tau = scipy.optimize.brentq(falling, 1e-6 * alpha, 1e3, xtol=1e-14)
    return float((1 + tau) * (1 + alpha / tau))


def _phi(z: float) -> float:
    return math.log1p(z) / z - 0.5


def _free_energy(log_variance: Vector, energies: Vector, alpha: float) -> Vector:
    """Omega without the part `-log gamma^2` that does not depend on the variance, `(tried,)`."""
    x = energies[None] * np.exp(-log_variance)[:, None]
    total = x.sum(axis=1) + energies.size * log_variance
    signal = x > _least_signal(alpha)
    shifted = np.where(signal, x - (1 + alpha), 2.0)
    tau = (shifted + np.sqrt(np.maximum(shifted**2 - 4 * alpha, 0.0))) / 2
    gained = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return np.asarray(total + np.where(signal, gained, 0.0).sum(axis=1))


def _shrunk(signal: Vector, short: int, long: int, variance: float) -> Vector:
    """`gamma / 2 (r + sqrt(r^2 - 4 L M s^2))`, `r = 1 - (L + M) s`, `s = sigma^2 / gamma^2`."""
    share = variance / signal**2
    rest = 1 - (short + long) * share
    return np.asarray(signal / 2 * (rest + np.sqrt(rest**2 - 4 * short * long * share**2)))
