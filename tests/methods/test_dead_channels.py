"""Channels that are zero on every calibration sample break no method."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny import tiny_arrays

from lrf_core import methods
from lrf_core.calibration import collect_moments
from lrf_core.exploration.score import score_layer
from lrf_core.methods import Moments
from lrf_core.models.inventory import geometry_of, kernel_matrix, take_inventory

layers = keras.layers
SAMPLES = tiny_arrays(24)[0].astype(np.float32) / 255


def model_with_dead(channels: int) -> keras.Model:
    """A convolution and a dense layer of 12 inputs each, some of which are always zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(12, 3, strides=2, activation="relu", name="first")(inputs)
    x = layers.Conv2D(16, 3, name="conv")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dense(12, activation="relu", name="second")(x)
    x = layers.Dense(32, name="dense")(x)
    model = keras.Model(
        inputs, layers.Dense(4, activation="softmax", name="last")(layers.ReLU()(x))
    )
    for name in ("first", "second"):
        model.get_layer(name).bias.assign([-1e3] * channels + [0.1] * (12 - channels))
    return model


@pytest.mark.parametrize("dead", [3, 12])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("tucker", "conv"),
        ("cp", "conv"),
        ("tensor_train", "conv"),
        ("svd", "dense"),
        ("qr", "dense"),
        ("t3f", "dense"),
    ],
)
def test_dead_inputs(method: str, path: str, dead: int) -> None:
    model = model_with_dead(dead)
    layer = model.get_layer(path)
    moments = collect_moments(model, {path: layer}, SAMPLES)[path]
    by_channel = np.diag(moments.second).reshape(-1, 12).sum(axis=0)
    assert (by_channel[:dead] == 0).all()
    check(model, path, method, moments)
    # Nor do gradients that are zero everywhere, or at some outputs.
    assert moments.gradient is not None
    for factor in (0.0, np.arange(len(moments.gradient)) % 2.0):
        gradient = (moments.gradient * factor).T * factor
        check(model, path, method, replace(moments, gradient=gradient))


def check(model: keras.Model, path: str, method: str, moments: Moments) -> None:
    """Candidates have numbers that make sense, and their factors are finite."""
    (record,) = (one for one in take_inventory(model, (method,)) if one.name == path)
    assert record.methods == (method,)
    layer = model.get_layer(path)
    candidates = score_layer(record, layer, moments, per_mode=3, similarity="nmse")
    assert candidates
    for candidate in candidates:
        assert np.isfinite([candidate.error, candidate.similarity, candidate.sensitivity]).all()
        assert 0 <= candidate.error < 1.5
        assert 0 <= candidate.similarity <= 1
    geometry = geometry_of(record)
    for layout in methods.get(method).layouts(geometry):
        decomposition = layout.decompose(kernel_matrix(layer), moments)
        ranks = layout.candidate_ranks(3)[0]
        assert all(np.isfinite(factor).all() for factor in decomposition.factors(ranks))
        # Directions without data fall back to the weights: nothing blows up.
        assert (
            np.abs(decomposition.effective_kernel(ranks)).max() < 100 * np.abs(layer.kernel).max()
        )
