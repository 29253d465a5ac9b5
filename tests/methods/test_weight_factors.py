"""Factors of the weights alone: those of the field's libraries, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
import tensorly as tl
from tensorly.decomposition import parafac, partial_tucker, tensor_train
from tiny import Trained

import lrf_core as lrf
from lrf_core import methods
from lrf_core.methods import Geometry, Layout

RNG = np.random.default_rng(0)
CONVOLUTION = RNG.normal(size=(3, 3, 6, 8))
DENSE = RNG.normal(size=(12, 10))


def rebuilt(layout: Layout, kernel: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    factors = layout.factors_of_weights(kernel.reshape(-1, kernel.shape[-1]), ranks)
    return layout.product(factors, ranks).reshape(kernel.shape)


def layouts(method: str, kernel: np.ndarray) -> list[Layout]:
    return list(methods.get(method).layouts(Geometry(kernel.shape, (), bias=False)))


@pytest.mark.parametrize("ranks", [(2, 3), (6, 3), (2, 8), (6, 8)])
def test_tucker_is_that_of_tensorly(ranks: tuple[int, int]) -> None:
    (layout,) = layouts("tucker", CONVOLUTION)
    by_channel = CONVOLUTION.reshape(9, 6, 8).swapaxes(0, 1)
    expected, _ = partial_tucker(by_channel, rank=list(ranks), modes=[0, 2], init="svd")
    core, (first, last) = expected
    tensor = np.einsum("awb,ia,ob->wio", core, first, last).reshape(CONVOLUTION.shape)

    np.testing.assert_allclose(rebuilt(layout, CONVOLUTION, ranks), tensor, atol=1e-10)


@pytest.mark.parametrize("ranks", [(2, 3, 4), (6, 3, 4), (2, 3, 8)])
def test_tensor_train_is_that_of_tensorly(ranks: tuple[int, ...]) -> None:
    (layout,) = layouts("tensor_train", CONVOLUTION)
    channels_first = CONVOLUTION.transpose(2, 0, 1, 3)
    expected = tl.tt_to_tensor(tensor_train(channels_first, [1, *ranks, 1]))

    np.testing.assert_allclose(
        rebuilt(layout, CONVOLUTION, ranks), expected.transpose(1, 2, 0, 3), atol=1e-10
    )


@pytest.mark.parametrize(("rank", "init"), [(3, "svd"), (20, "random")])
def test_cp_is_that_of_tensorly(rank: int, init: str) -> None:
    for layout in layouts("cp", CONVOLUTION):
        tensor = CONVOLUTION.reshape((9, 6, 8) if layout.name == "merged" else CONVOLUTION.shape)
        expected = tl.cp_to_tensor(parafac(tensor, rank, init=init, random_state=0))

        found = rebuilt(layout, CONVOLUTION, (rank,))
        np.testing.assert_allclose(found, expected.reshape(CONVOLUTION.shape), atol=1e-10)


def test_svd_is_the_truncated_one_and_qr_takes_pivot_columns() -> None:
    (svd,) = layouts("svd", DENSE)
    U, s, Vt = np.linalg.svd(DENSE, full_matrices=False)
    np.testing.assert_allclose(rebuilt(svd, DENSE, (3,)), (U[:, :3] * s[:3]) @ Vt[:3], atol=1e-10)

    (qr,) = layouts("qr", DENSE)
    # A projection onto three columns of the kernel leaves these as they are.
    unchanged = np.isclose(rebuilt(qr, DENSE, (3,)), DENSE).all(axis=0)
    assert unchanged.sum() == 3


def test_cores_of_full_rank_are_the_kernel() -> None:
    for layout in layouts("t3f", DENSE):
        np.testing.assert_allclose(rebuilt(layout, DENSE, layout.full_ranks), DENSE, atol=1e-5)


def test_a_model_is_compressed_by_factors_that_no_data_changes(trained: Trained) -> None:
    models = []
    for seed in (0, 1):
        settings = lrf.ExploreSpec(
            samples=64, methods=("tucker", "svd"), factors="weights", ranks_per_mode=4
        )
        analysis = lrf.analyze(trained.model, trained.data, settings=settings, seed=seed)
        space = lrf.explore(trained.model, trained.data, analysis, settings=settings, seed=seed)
        plan, model = lrf.decompose(
            trained.model,
            trained.data,
            [space],
            lrf.Goal(params_reduction=0.5),
            settings=lrf.DecomposeSpec(policy="threshold"),
            seed=seed,
        )
        models.append((plan.choices, model))
    alike = [
        f"{one.candidate.layer}_{one.candidate.method}_"
        for one, other in zip(models[0][0], models[1][0], strict=True)
        if one.candidate
        and other.candidate
        and (one.candidate.method, one.candidate.ranks)
        == (other.candidate.method, other.candidate.ranks)
    ]
    assert alike
    for prefix in alike:
        kernels = [
            [
                w.numpy()
                for part in model.layers
                if part.name.startswith(prefix)
                for w in part.weights
            ]
            for _, model in models
        ]
        for one, other in zip(*kernels, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_method_without_such_factors_says_so() -> None:
    class Ours(methods.Layout):
        method = "ours"
        full_ranks = (1,)
        candidate_ranks = cost = decompose = chain = None  # type: ignore[assignment]

    with pytest.raises(lrf.LrfError, match="ours has no factors of the weights alone"):
        Ours(Geometry((4, 4), (), bias=False)).factors_of_weights(np.eye(4), (1,))
