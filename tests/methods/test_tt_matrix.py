"""Arithmetic of TT-matrices, against the matrix they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core.methods import tt_matrix
from lrf_core.methods.moments import SecondMoment
from lrf_core.methods.t3f import leading_cores, square_root, tt_svd
from lrf_core.methods.tt_least_squares import leading_directions, principal_rows
from lrf_core.methods.tt_matrix import (
    Modes,
    balanced_factors,
    between,
    expanded,
    left_part,
    projected,
    right_part,
    squared_norm,
)

MODES = Modes((4, 3, 5), (2, 6, 3))


@pytest.fixture
def cores() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape) for shape in MODES.core_shapes((3, 2)))


def entry_by_entry(cores: tuple[np.ndarray, ...]) -> np.ndarray:
    first, second, third = cores
    tensor = np.einsum("amnb,bpqc,cuvd->mpunqv", first, second, third)
    return tensor.reshape(MODES.shape)


def test_the_matrix_is_the_product_of_its_cores(cores: tuple[np.ndarray, ...]) -> None:
    np.testing.assert_allclose(tt_matrix.expanded(cores), entry_by_entry(cores), atol=1e-12)


def test_rows_go_through_the_cores_as_through_the_matrix(cores: tuple[np.ndarray, ...]) -> None:
    rows = np.random.default_rng(1).normal(size=(300, 60))  # more than one block
    np.testing.assert_allclose(
        tt_matrix.times(rows, cores), rows @ entry_by_entry(cores), atol=1e-10
    )


def test_projecting_a_matrix_on_its_own_neighbours_gives_the_core_back(
    cores: tuple[np.ndarray, ...],
) -> None:
    moved = tt_matrix.moved_right(tt_matrix.gathered_first(cores), 0)
    before, after = tt_matrix.left_part(moved[:1]), tt_matrix.right_part(moved[2:])
    np.testing.assert_allclose(
        tt_matrix.projected(entry_by_entry(cores), before, after), moved[1], atol=1e-10
    )


@pytest.mark.parametrize(
    "same",
    [
        tt_matrix.gathered_first,
        tt_matrix.balanced,
        lambda cores: tt_matrix.moved_right(cores, 1),
        lambda cores: tt_matrix.moved_left(cores, 2),
        lambda cores: tt_matrix.with_ranks(cores, (5, 4)),
    ],
)
def test_the_matrix_stays_as_it_is(cores: tuple[np.ndarray, ...], same) -> None:
    np.testing.assert_allclose(tt_matrix.expanded(same(cores)), entry_by_entry(cores), atol=1e-10)


def test_t3f_finds_a_matrix_of_low_rank(cores: tuple[np.ndarray, ...]) -> None:
    matrix = entry_by_entry(cores)
    for decomposition in (tt_svd, leading_cores):
        found = decomposition(matrix, MODES, (3, 2))
        assert tt_matrix.ranks_of(found) == (3, 2)
        np.testing.assert_allclose(tt_matrix.expanded(found), matrix, atol=1e-9)


def test_t3f_at_full_ranks_has_every_matrix() -> None:
    matrix = np.random.default_rng(2).normal(size=MODES.shape)
    found = tt_svd(matrix, MODES, MODES.full_ranks)
    np.testing.assert_allclose(tt_matrix.expanded(found), matrix, atol=1e-10)


def test_leading_directions_are_the_leading_singular_vectors() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(80, 70)) * 0.5 ** np.arange(70)
    U = np.linalg.svd(matrix)[0][:, :5]
    found = leading_directions(matrix, 5)
    np.testing.assert_allclose(found @ found.T, U @ U.T, atol=1e-8)


def test_principal_rows_are_all_of_a_small_moment_and_the_largest_part_of_a_wide_one() -> None:
    rng = np.random.default_rng(4)
    data = rng.normal(size=(400, 90)) * 0.8 ** np.arange(90)
    second = data.T @ data
    small = principal_rows(SecondMoment(second[:20, :20]), 64)
    np.testing.assert_allclose(small.T @ small, second[:20, :20], rtol=1e-9)
    leading = np.linalg.eigvalsh(second)[::-1][:10].sum()
    for moment in (second, data[:60]):  # in full, and as the root of another
        wide = principal_rows(SecondMoment(moment), 10)
        assert wide.shape == (10, 90)
        if len(moment) < 90:
            leading = np.linalg.eigvalsh(moment.T @ moment)[::-1][:10].sum()
        np.testing.assert_allclose(np.sum(wide**2), leading, rtol=1e-6)


def test_the_square_root_of_a_moment_has_no_more_rows_than_the_moment_was_summed_over() -> None:
    data = np.random.default_rng(5).normal(size=(12, 40)).astype(np.float32)
    second = (data.T @ data).astype(np.float64)
    rows = square_root(second, 12)
    assert rows.shape == (12, 40)
    np.testing.assert_allclose(rows.T @ rows, second, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "count", "factors"),
    [
        (4096, 3, (16, 16, 16)),
        (3072, 2, (64, 48)),
        (1000, 3, (10, 10, 10)),
        (10, 2, (5, 2)),
        (257, 2, (20, 13)),  # prime: 260
        (4097, 2, (82, 50)),  # 17 x 241: 4100
        (7, 3, (2, 2, 2)),
        (1, 2, (1, 1)),
    ],
)
def test_sizes_split_evenly_and_awkward_ones_are_padded(
    size: int, count: int, factors: tuple[int, ...]
) -> None:
    assert balanced_factors(size, count) == factors


def test_padding_stays_small() -> None:
    for size in range(50, 3000, 7):
        for count in (2, 3, 4):
            assert size <= np.prod(balanced_factors(size, count)) <= 1.13 * size


def test_inner_products_need_no_expanded_matrix(cores: tuple[np.ndarray, ...]) -> None:
    matrix = expanded(cores)
    np.testing.assert_allclose(squared_norm(cores), np.sum(matrix**2))
    for k in range(2):
        sides = left_part(cores[:k]), right_part(cores[k + 2 :])
        np.testing.assert_allclose(between(cores, k), projected(matrix, *sides), atol=1e-9)
