"""Batches of an epoch are the same each time, from wherever it is entered, for all workers."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core.data import Split
from lrf_core.training.augment import flip
from lrf_core.training.batches import Batches
from lrf_core.training.distribute import Workers

COUNT, SIZE = 103, 10


def batches(augment=None, workers: Workers = Workers()) -> Batches:  # type: ignore[no-untyped-def]  # noqa: B008
    random = np.random.default_rng(0)
    samples = random.normal(size=(COUNT, 4, 4, 1))
    return Batches(Split.of(samples), np.arange(COUNT)[:, None], SIZE, 7, augment, workers)


def all_of(epoch) -> list[tuple[np.ndarray, np.ndarray]]:  # type: ignore[no-untyped-def]
    return [epoch[index] for index in range(len(epoch))]


def test_an_epoch_sees_each_sample_once_at_most_and_whole_batches_only() -> None:
    made = all_of(batches().epoch(1))
    seen = np.concatenate([targets.ravel() for _, targets in made])
    assert len(made) == batches().per_epoch == COUNT // SIZE
    assert len(set(seen)) == len(seen) == COUNT // SIZE * SIZE


def test_samples_and_targets_stay_together() -> None:
    whole = batches()
    for samples, targets in all_of(whole.epoch(2)):
        assert np.array_equal(samples, whole.samples.read(targets.ravel()))


def test_epochs_differ_in_their_order() -> None:
    first, second = (batches().epoch(number)[0][1] for number in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("augment", [None, flip])
def test_an_epoch_entered_later_goes_on_with_the_same_batches(augment) -> None:  # type: ignore[no-untyped-def]
    whole, rest = all_of(batches(augment).epoch(3)), all_of(batches(augment).epoch(3, start=4))
    assert len(rest) == len(whole) - 4
    for (x, y), (x_rest, y_rest) in zip(whole[4:], rest, strict=True):
        assert np.array_equal(x, x_rest)
        assert np.array_equal(y, y_rest)


def test_workers_share_each_batch_without_overlap() -> None:
    whole = all_of(batches().epoch(1))
    parts = [all_of(batches(workers=Workers(rank, 2)).epoch(1)) for rank in range(2)]
    for (x, y), *shares in zip(whole, *parts, strict=True):
        assert np.array_equal(x, np.concatenate([share[0] for share in shares]))
        assert np.array_equal(y, np.concatenate([share[1] for share in shares]))
