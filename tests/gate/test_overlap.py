"""Test samples that were trained on are found, whatever the samples look like."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core.data import Split
from lrf_core.gate import overlap as module
from lrf_core.gate.overlap import overlap


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)


def test_samples_of_both_parts_are_counted() -> None:
    train, test = images(300, 0), images(50, 1)
    test[[3, 30]] = train[[7, 299]]
    found = overlap(Split.of(test), Split.of(train), seed=0)
    assert (found.shared, found.evaluated, found.looked_at) == (2, 50, 300)
    assert found.warning().startswith("2 of 50 test samples (4.0%) are among the training samples:")


def test_other_samples_are_none_of_them() -> None:
    found = overlap(Split.of(images(50, 1)), Split.of(images(300, 0)), seed=0)
    assert found.shared == 0
    assert found.warning() == ""


def test_one_bit_makes_another_sample_and_so_does_the_type() -> None:
    train = images(4, 0)
    almost = train.copy()
    almost[0, 0, 0, 0] ^= 1
    assert overlap(Split.of(almost), Split.of(train), seed=0).shared == 3
    assert overlap(Split.of(train.astype(float)), Split.of(train), seed=0).shared == 0


def test_several_inputs_count_together_and_texts_by_their_content() -> None:
    train = {"image": images(3, 0), "words": np.array(["a", "bb", "c"])}
    test = {"image": images(3, 0), "words": np.array(["a", "bb", "another"])}
    assert overlap(Split.of(test), Split.of(train), seed=0).shared == 2


def test_of_large_training_data_a_part_is_looked_at_and_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_TRAINING_SAMPLES", 100)
    train = images(300, 0)
    found = overlap(Split.of(train[:60]), Split.of(train), seed=0)
    assert 0 < found.shared < 60
    assert "the 100 of 300 training samples looked at" in found.warning()
