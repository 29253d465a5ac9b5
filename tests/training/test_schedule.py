"""What is not set follows from the data; what is set stays."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrf_core.errors import SpecError
from lrf_core.spec import FinetuneSpec
from lrf_core.training.schedule import cosine, resolved


@given(
    count=st.integers(1, 10**7),
    values=st.integers(1, 10**7),
    epochs=st.integers(0, 300),
)
def test_defaults_are_in_range(count: int, values: int, epochs: int) -> None:
    found = resolved(FinetuneSpec(epochs=epochs), count, values, 1)
    assert found.batch_size is not None
    assert found.learning_rate is not None
    assert found.patience is not None
    assert 1 <= found.batch_size <= min(128, count)
    assert 0 < found.learning_rate <= 1e-3
    assert found.patience >= 3


def test_batches_grow_with_the_data_and_shrink_with_large_samples() -> None:
    sizes = [resolved(FinetuneSpec(), count, 3072, 1).batch_size for count in (500, 5000, 50000)]
    assert sizes == [16, 32, 128]
    assert resolved(FinetuneSpec(), 50000, 224 * 224 * 3, 1).batch_size == 32


@given(size=st.integers(1, 4096))
def test_the_learning_rate_grows_with_the_square_root_of_the_batch(size: int) -> None:
    one, four = (
        resolved(FinetuneSpec(batch_size=scale * size), 10**6, 1, 1).learning_rate
        for scale in (1, 4)
    )
    assert one is not None
    assert four == pytest.approx(2 * one)


def test_what_is_set_stays() -> None:
    asked = FinetuneSpec(batch_size=24, learning_rate=0.5, patience=1)
    assert resolved(asked, 1000, 10, 1) == asked


def test_workers_share_batches_evenly() -> None:
    assert resolved(FinetuneSpec(batch_size=32), 1000, 10, 3).batch_size == 30
    with pytest.raises(SpecError, match="batches of 2 are too small for 3 workers"):
        resolved(FinetuneSpec(batch_size=2), 1000, 10, 3)


def test_the_rate_warms_up_to_its_peak_and_ends_at_zero() -> None:
    rate = cosine(0.1, 200)
    rates = [float(rate(step)) for step in range(201)]
    peak = max(range(201), key=rates.__getitem__)
    assert rates[peak] == pytest.approx(0.1, rel=1e-4)
    assert 5 <= peak <= 15
    assert rates[0] < 0.02
    assert rates[200] == pytest.approx(0.0, abs=1e-6)
    assert all(math.isfinite(value) for value in rates)
