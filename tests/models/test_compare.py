from __future__ import annotations

import numpy as np
import pytest

from lrf_core.data import Split
from lrf_core.models.compare import compare, drop_interval


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(3)[classes]


def test_drop_and_agreement_are_counted_on_the_same_samples() -> None:
    split = Split.of(np.zeros((4, 1)), np.array([0, 1, 2, 0]))
    before = one_hot([0, 1, 2, 1])  # 3 of 4 right
    after = one_hot([0, 2, 1, 1])  # 1 of 4 right
    compared = compare(before, after, split, seed=0)
    assert compared.drop == pytest.approx(50.0)
    assert compared.agreement == pytest.approx(50.0)
    low, high = compared.interval
    assert low <= compared.drop <= high


def test_a_gain_is_a_negative_drop() -> None:
    split = Split.of(np.zeros((2, 1)), np.array([0, 1]))
    assert compare(one_hot([1, 1]), one_hot([0, 1]), split, seed=0).drop == pytest.approx(-50.0)


def test_the_interval_covers_the_true_drop_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    count, lost, won = 400, 0.06, 0.03
    trials = random.multinomial(count, [lost, won, 1 - lost - won], size=300)
    covered = 0
    for seed, (n_lost, n_won, _) in enumerate(trials):
        low, high = drop_interval(int(n_lost), int(n_won), count, seed)
        covered += low <= 100.0 * (lost - won) <= high
    assert 0.91 <= covered / len(trials) <= 0.985


def test_the_interval_is_that_of_resampled_pairs() -> None:
    random = np.random.default_rng(1)
    count = 500
    changes = np.repeat([1, -1, 0], [40, 15, count - 55])  # lost, won, unchanged
    drawn = random.choice(changes, size=(4000, count)).mean(axis=1) * 100.0
    expected = np.percentile(drawn, (2.5, 97.5))
    np.testing.assert_allclose(drop_interval(40, 15, count, seed=0), expected, atol=0.35)


def test_the_interval_depends_on_the_seed_alone() -> None:
    assert drop_interval(40, 15, 500, seed=7) == drop_interval(40, 15, 500, seed=7)
    assert len({drop_interval(1234, 987, 54321, seed) for seed in range(8)}) > 1


def test_the_interval_narrows_with_more_samples() -> None:
    few, many = drop_interval(4, 2, 50, seed=0), drop_interval(400, 200, 5000, seed=0)
    assert many[1] - many[0] < (few[1] - few[0]) / 5


def test_no_change_gives_no_width() -> None:
    assert drop_interval(0, 0, 100, seed=0) == (0.0, 0.0)
