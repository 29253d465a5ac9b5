"""Positions are drawn uniformly, in exact numbers, and whatever the batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_core.calibration.patches import PatchTable, patch_table
from lrf_core.calibration.positions import KEPT_ROWS, LayerPositions

conv = keras.layers.Conv2D(4, 3, padding="same")


def table(height: int = 10, width: int = 12) -> PatchTable:
    return patch_table(conv, (height, width, 2))


def drawn(
    positions: LayerPositions, samples: int, batch_size: int, tables: list[PatchTable]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each call: summed positions, and (slot, position), counted through all samples."""
    summed: list[list[np.ndarray]] = [[] for _ in tables]
    kept: list[list[np.ndarray]] = [[] for _ in tables]
    for start in range(0, samples, batch_size):
        size = min(batch_size, samples - start)
        for call, found in enumerate(positions.of_batch(start, size)):
            offset = start * tables[call].positions
            summed[call].append(found.summed + offset)
            kept[call].append(np.stack([found.slots, found.kept + offset], axis=1))
            expected = size * tables[call].positions
            assert found.weight * len(found.summed) == pytest.approx(expected)
    return (
        [np.concatenate(part) for part in summed],
        [np.concatenate(part) for part in kept],
    )


@settings(max_examples=20)
@given(
    samples=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    per_sample=st.integers(1, 200),
    side=st.sampled_from([1, 7]),
)
def test_batches_change_nothing(samples: int, batch_size: int, per_sample: int, side: int) -> None:
    tables = [table(), table(8, 8)]

    def one() -> LayerPositions:
        return LayerPositions("a/b", tables, samples, per_sample, seed=3, side=side)

    in_batches, at_once = (drawn(one(), samples, size, tables) for size in (batch_size, samples))
    for kind in (0, 1):
        for found, expected in zip(in_batches[kind], at_once[kind], strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, own in zip(at_once[0], tables, strict=True):
        assert len(found) == samples * min(per_sample, own.positions)
        assert len(np.unique(found)) == len(found)
    slots = np.concatenate([part[:, 0] for part in at_once[1]])
    np.testing.assert_array_equal(np.sort(slots), np.arange(one().rows_kept))


def test_exactly_as_many_rows_are_kept_as_there_are_up_to_1024() -> None:
    for samples, expected in ((3, 360), (8, 960), (9, KEPT_ROWS), (200, KEPT_ROWS)):
        assert LayerPositions("a", [table()], samples, 5, seed=0).rows_kept == expected


def test_kept_rows_are_uniform_over_all_positions_of_all_calls() -> None:
    tables = [table(5, 4), table(3, 2)]
    counts = np.zeros((50, 26))
    for seed in range(60):
        positions = LayerPositions("a", tables, 50, 1, seed=seed)
        _, kept = drawn(positions, 50, 50, tables)
        for first, own, found in zip((0, 20), tables, kept, strict=True):
            samples, within = np.divmod(found[:, 1], own.positions)
            np.add.at(counts, (samples, first + within), 1)
    # Six standard deviations of the mean of 3,000, 1,560 and 60 draws each.
    share = KEPT_ROWS / 1300
    np.testing.assert_allclose(counts.mean(axis=0) / 60, share, atol=0.045)
    np.testing.assert_allclose(counts.mean(axis=1) / 60, share, atol=0.06)
    np.testing.assert_allclose(counts / 60, share, atol=0.32)


def test_windows_are_whole_and_row_major() -> None:
    positions = LayerPositions("a", [table()], 5, 1, seed=0, side=7)
    assert positions.rows_kept == 20 * 49
    _, (kept,) = drawn(positions, 5, 2, [table()])
    windows = kept[np.argsort(kept[:, 0]), 1].reshape(20, 7, 7)
    np.testing.assert_array_equal(windows[:, 0, 1:] - windows[:, 0, :-1], 1)
    np.testing.assert_array_equal(windows[:, 1:] - windows[:, :-1], 12)
    np.testing.assert_array_equal(windows[:, 0, 0] // 120, windows[:, -1, -1] // 120)
    assert (windows[:, 0, 0] % 12 <= 12 - 7).all()


@pytest.mark.parametrize("shape", [(6, 12, 2), (12, 6, 2)])
def test_maps_smaller_than_the_window_keep_single_positions(shape: tuple[int, ...]) -> None:
    own = patch_table(conv, shape)
    assert LayerPositions("a", [own], 2, 1, seed=0, side=7).rows_kept == 144
    dense = patch_table(keras.layers.Dense(3), (5,))
    assert LayerPositions("a", [dense], 9, 1, seed=0, side=7).rows_kept == 9


def test_layers_draw_apart_from_each_other() -> None:
    one, other = (LayerPositions(path, [table()], 30, 9, seed=0) for path in "ab")
    assert not np.array_equal(one.of_batch(0, 4)[0].summed, other.of_batch(0, 4)[0].summed)
    assert not np.array_equal(one.of_batch(4, 9)[0].kept, other.of_batch(4, 9)[0].kept)
