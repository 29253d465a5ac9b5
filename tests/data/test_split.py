from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrf_core.data import Split


def numbered(count: int) -> Split:
    """Sample i is filled with i and has label i % 3."""
    samples = np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, axis=1)
    return Split.of(samples, np.arange(count) % 3)


@given(count=st.integers(0, 40), batch_size=st.integers(1, 50))
def test_batches_joined_are_the_arrays(count: int, batch_size: int) -> None:
    split = numbered(count)
    samples, labels = split.arrays()
    batches = list(split.batches(batch_size))
    assert all(len(x) == len(y) <= batch_size for x, y in batches)
    assert np.array_equal(np.concatenate([x for x, _ in batches] or [samples[:0]]), samples)
    assert np.array_equal(np.concatenate([y for _, y in batches] or [labels[:0]]), labels)


@given(data=st.data(), count=st.integers(1, 40))
def test_a_view_of_a_view_reads_the_samples_it_names(data: st.DataObject, count: int) -> None:
    index = st.integers(0, count - 1)
    first = data.draw(st.lists(index, min_size=1, max_size=30))
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=30))
    view = numbered(count).take(first).take(second)
    expected = np.asarray(first)[second] if second else np.empty(0)
    samples, labels = view.arrays()
    assert view.count == len(second)
    assert np.array_equal(samples[:, 0], expected)
    assert np.array_equal(labels, expected % 3)


@given(count=st.integers(1, 60), wanted=st.integers(1, 80), seed=st.integers(0, 5))
def test_a_sample_has_no_sample_twice_and_keeps_the_order(
    count: int, wanted: int, seed: int
) -> None:
    split = numbered(count)
    drawn = split.sample(wanted, seed).arrays()[0][:, 0]
    assert len(drawn) == min(count, wanted)
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, split.sample(wanted, seed).arrays()[0][:, 0])


def test_another_seed_draws_other_samples() -> None:
    split = numbered(1000)
    drawn = [split.sample(100, seed).arrays()[0][:, 0] for seed in (0, 1)]
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=r"\[0, 5\)"):
        numbered(5).take([0, index])


def test_a_split_without_labels_stays_so() -> None:
    split = Split.of(np.zeros((6, 2), np.uint8)).take([1, 2, 3]).sample(2, 0)
    assert split.labels is None
    assert [labels for _, labels in split.batches(1)] == [None, None]
    assert split.arrays()[0].dtype == np.uint8
