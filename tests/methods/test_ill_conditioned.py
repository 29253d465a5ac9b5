"""Kernels and inputs of bad condition take no more steps than others, and give finite factors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
import threadpoolctl

from lrf_core import methods
from lrf_core.artifacts import Call
from lrf_core.exploration.score import score_layer
from lrf_core.methods import Geometry, Moments, als, cp
from lrf_core.models.inventory import take_inventory

SHAPE = (2, 2, 3, 4, 6)
GEOMETRY = Geometry(SHAPE, (Call(inputs=(5, 5, 5), outputs=(5, 5, 5)),), True)


def product(vectors: list[np.ndarray]) -> np.ndarray:
    """The tensor of rank 1 of one vector for each mode."""
    result = vectors[0]
    for vector in vectors[1:]:
        result = np.multiply.outer(result, vector)
    return result


def kernel(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "rank one, and noise":
        return product([rng.normal(size=size) for size in SHAPE]) + 1e-7 * rng.normal(size=SHAPE)
    if kind == "a sum whose best components cancel each other":
        ones, others = ([rng.normal(size=size) for size in SHAPE] for _ in range(2))
        return sum(
            product([*ones[:mode], others[mode], *ones[mode + 1 :]]) for mode in range(len(SHAPE))
        )
    if kind == "equal filters":
        return np.repeat(rng.normal(size=(*SHAPE[:-1], 1)), SHAPE[-1], axis=-1)
    if kind == "filters of twelve decades":
        return rng.normal(size=SHAPE) * np.geomspace(1, 1e-12, SHAPE[-1])
    if kind == "next to nothing":
        return 1e-12 * rng.normal(size=SHAPE)
    return rng.normal(size=SHAPE)


def moments(kind: str) -> Moments:
    rng = np.random.default_rng(1)
    inputs = int(np.prod(SHAPE[:-1]))
    rows = rng.normal(size=(4 * inputs, inputs))
    if kind == "nearly constant":
        rows = 1 + 1e-6 * rows
    if kind == "of twelve decades":
        rows = rows * np.geomspace(1, 1e-12, inputs)
    if kind == "half of them zero":
        rows[:, ::2] = 0
    rows = rows.astype(np.float32)
    second = rows.astype(np.float64).T @ rows
    return Moments(second, None, rows[:64], len(rows))


@pytest.mark.parametrize("inputs", ["nearly constant", "of twelve decades", "half of them zero"])
@pytest.mark.parametrize(
    "weights",
    [
        "rank one, and noise",
        "a sum whose best components cancel each other",
        "equal filters",
        "filters of twelve decades",
        "next to nothing",
    ],
)
def test_cp_takes_a_bounded_number_of_steps(
    weights: str, inputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Counter[str] = Counter()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def count(*args: Any, **kwargs: Any) -> Any:
            steps[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, count)

    counted(als, "_solved")
    counted(als, "_descended")
    taken = {}
    for which in ((weights, inputs), ("random", "random")):
        steps.clear()
        (layout,) = methods.get("cp").layouts(GEOMETRY)
        decomposition = layout.decompose(kernel(which[0]).reshape(-1, SHAPE[-1]), moments(which[1]))
        for ranks in layout.candidate_ranks(4):
            assert np.isfinite(decomposition.effective_kernel(ranks)).all()
        taken[which] = dict(steps)
    hard, easy = taken[weights, inputs], taken["random", "random"]
    # Every rank may be fitted again with stronger ridges.
    assert hard["_solved"] <= (1 + cp._RIDGES) * easy["_solved"]
    assert hard["_descended"] <= (1 + cp._RIDGES) * easy["_descended"]


def test_components_that_always_cancel_are_regularized_so_often_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ridges = []
    fitted = cp.CpDecomposition._fitted

    def seen(self: cp.CpDecomposition, rank: int, ridge: float) -> als.Solved:
        ridges.append(ridge)
        return fitted(self, rank, ridge)

    monkeypatch.setattr(cp.CpDecomposition, "_fitted", seen)
    monkeypatch.setattr(cp, "_LARGEST_NORM_RATIO", 0.0)
    (layout,) = methods.get("cp").layouts(GEOMETRY)
    decomposition = layout.decompose(kernel("random").reshape(-1, SHAPE[-1]), moments("random"))
    decomposition.effective_kernel((layout.ladder[0],))
    assert len(ridges) == 1 + cp._RIDGES
    assert ridges == sorted(ridges)
    assert ridges[-1] < 1


def test_scoring_keeps_to_one_blas_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other take a hundred times longer on a busy machine."""
    threads = set()
    svd = methods.get("svd")

    def layouts(geometry: Geometry) -> Any:
        found = threadpoolctl.threadpool_info()
        threads.update(one["num_threads"] for one in found if one["user_api"] == "blas")
        return svd.layouts(geometry)

    monkeypatch.setitem(methods.base._registry, "svd", methods.base.Method("svd", layouts))
    inputs = keras.Input((16,))
    model = keras.Model(inputs, keras.layers.Dense(8, name="dense")(inputs))
    (record,) = take_inventory(model, ("svd",))
    rows = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    seen = Moments(rows.astype(np.float64).T @ rows, None, rows, len(rows))
    with threadpoolctl.threadpool_limits(4, user_api="blas"):
        threads.clear()
        score_layer(record, model.layers[-1], seen, per_mode=4, similarity="nmse")
    assert threads == {1}
