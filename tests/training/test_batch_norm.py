"""Recalibrated statistics are averages over batches, as the layers would see them when served."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lrf_core.data import Split
from lrf_core.training.batch_norm import normalizations, recalibrate


def model_with(*before: keras.layers.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input((6,)), *before, keras.layers.BatchNormalization(momentum=0.9, name="norm")]
    )


def samples(count: int = 64) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(3.0, 2.0, size=(count, 6)).astype(np.float32)


def statistics(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    norm = model.get_layer("norm")
    return np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)


def test_statistics_are_averages_over_batches() -> None:
    model, x = model_with(), samples()
    recalibrate(model, Split.of(x), 16, seed=0)
    mean, variance = statistics(model)
    assert mean == pytest.approx(x.mean(axis=0), rel=1e-4)
    order = np.random.default_rng(0).permutation(64).reshape(4, 16)
    assert variance == pytest.approx(np.mean([x[b].var(axis=0) for b in order], axis=0), rel=1e-4)


def test_what_is_dropped_in_training_is_not_dropped_here() -> None:
    model, x = model_with(keras.layers.Dropout(0.5)), samples()
    recalibrate(model, Split.of(x), 64, seed=0)
    assert statistics(model)[0] == pytest.approx(x.mean(axis=0), rel=1e-4)
    assert model.layers[0].rate == 0.5


def test_settings_are_as_they_were() -> None:
    model = model_with()
    recalibrate(model, Split.of(samples()), 16, seed=0)
    assert [layer.momentum for layer in normalizations(model)] == [0.9]


def test_frozen_layers_are_left_alone() -> None:
    model = model_with()
    model.get_layer("norm").trainable = False
    assert normalizations(model) == []
