"""Augmentation changes samples at random, by a seed alone, and only where it can."""

from __future__ import annotations

import numpy as np
import pytest

from lrf_core.errors import DataError
from lrf_core.training.augment import augmentation, flip, flip_shift

IMAGES = np.random.default_rng(0).integers(1, 255, (40, 16, 24, 3)).astype(np.uint8)


def test_about_half_of_the_images_are_mirrored_and_the_others_stay() -> None:
    changed = flip(IMAGES, np.random.default_rng(1))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(IMAGES, changed, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(IMAGES, changed, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 30


def test_shifted_images_are_windows_of_the_padded_ones() -> None:
    changed = flip_shift(IMAGES, np.random.default_rng(1))
    assert changed.shape == IMAGES.shape
    assert changed.dtype == IMAGES.dtype
    offsets = set()
    for image, shifted in zip(IMAGES, changed, strict=True):
        found = [
            (down, right)
            for turned in (image, image[:, ::-1])
            for padded in [np.pad(turned, ((2, 2), (3, 3), (0, 0)))]
            for down in range(5)
            for right in range(7)
            if np.array_equal(padded[down : down + 16, right : right + 24], shifted)
        ]
        assert found
        offsets.update(found)
    assert len(offsets) > 10


@pytest.mark.parametrize("name", ["flip", "flip_shift"])
def test_equal_seeds_give_equal_images(name: str) -> None:
    augment = augmentation(name)
    first, again, other = (augment(IMAGES, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="only images"):
        flip(np.zeros((4, 10)), np.random.default_rng(0))


MODULE = """
def brighter(samples, random):
    return samples + random.integers(0, 2, samples.shape).astype(samples.dtype)

def shorter(samples, random):
    return samples[:1]

def broken(samples, random):
    raise KeyError("colour")
"""


def test_a_function_of_ones_own_is_called(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_augment.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    changed = augmentation("my_augment:brighter")(IMAGES, random)
    assert set(np.unique(changed.astype(int) - IMAGES)) == {0, 1}
    with pytest.raises(DataError, match="my_augment:shorter returned samples of shapes"):
        augmentation("my_augment:shorter")(IMAGES, random)
    with pytest.raises(DataError, match="my_augment:broken failed: KeyError: 'colour'"):
        augmentation("my_augment:broken")(IMAGES, random)
    with pytest.raises(DataError, match="no function 'nothing'"):
        augmentation("my_augment:nothing")
