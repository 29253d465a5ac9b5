"""Calibration samples that cannot be used are refused, those that tell little are warned about."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import pytest
from tiny import tiny_arrays, tiny_data

from lrf_core.calibration import (
    calibration_samples,
    check_calibration_samples,
    samples_digest,
)
from lrf_core.data import Split
from lrf_core.errors import DataError


def images(count: int = 100) -> np.ndarray:
    return tiny_arrays(count)[0].astype(np.float32)


def test_the_sample_that_is_not_finite_is_named_as_in_the_data() -> None:
    values = images()
    values[70, 3, 4, 1] = np.nan
    drawn = Split.of(values).take([3, 70, 5]).take([2, 1])
    with pytest.raises(DataError, match="folder: training sample 70 holds NaN or infinite values"):
        check_calibration_samples(drawn, "folder")
    values[70, 3, 4, 1] = -np.inf
    with pytest.raises(DataError, match="training sample 70 holds NaN"):
        check_calibration_samples(Split.of(values), "folder")


def test_samples_that_are_all_the_same() -> None:
    same = np.repeat(images(1), 50, axis=0)
    with pytest.raises(DataError, match="all 50 calibration samples are the same"):
        check_calibration_samples(Split.of(same), "folder")
    check_calibration_samples(Split.of([same, images(50)]), "folder")


def test_constant_images(caplog: pytest.LogCaptureFixture) -> None:
    flat = np.arange(50)[:, None, None, None] * np.ones((50, 8, 8, 3), np.float32)
    with caplog.at_level(logging.WARNING, "lrf"):
        check_calibration_samples(Split.of(flat), "folder")
    assert "every calibration sample is one value throughout" in caplog.text
    flat[49, 0, 0, 0] = -1
    caplog.clear()
    check_calibration_samples(Split.of(flat), "folder")
    assert not caplog.text


def test_one_class(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lrf"):
        check_calibration_samples(Split.of(images(), np.full(100, 3)), "folder")
    assert "all 100 calibration samples are of class 3" in caplog.text
    caplog.clear()
    check_calibration_samples(Split.of(images(), np.arange(100) % 2), "folder")
    check_calibration_samples(Split.of(images()), "folder")
    assert not caplog.text


def test_fewer_samples_than_asked() -> None:
    with pytest.raises(DataError, match=r"512 training samples, explore.samples asks for 600"):
        calibration_samples(tiny_data(), 600, seed=0)


def test_the_digest_is_that_of_the_whole() -> None:
    values = images()
    whole = hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    assert samples_digest(Split.of(values)) == whole.hexdigest()
    changed = values.copy()
    changed[99, 0, 0, 0] += 1
    several = [Split.of({"a": x, "b": y}) for x in (values, changed) for y in (values, changed)]
    texts = [Split.of(np.array(["one", "two"])), Split.of(np.array(["one", "too"]))]
    others = [Split.of(changed), Split.of(values[:99]), Split.of(values.astype(np.float64))]
    digests = {samples_digest(split) for split in (Split.of(values), *several, *texts, *others)}
    assert len(digests) == 10
