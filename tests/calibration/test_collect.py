"""Moments are those that a direct computation gives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_arrays, tiny_cnn

from lrf_core.calibration import collect_moments, patches, second_moment
from lrf_core.errors import DataError

layers = keras.layers


def by_hand(layer: keras.Layer, source: np.ndarray) -> np.ndarray:
    """im2col rows by TensorFlow, `(samples * positions, n)`."""
    size = layer.kernel_size
    patches = tf.image.extract_patches(
        source,
        [1, *size, 1],
        [1, *layer.strides, 1],
        [1, *layer.dilation_rate, 1],
        layer.padding.upper(),
    ).numpy()
    return patches.reshape(-1, patches.shape[-1]).astype(np.float64)


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": 2, "padding": "same"},
        {"strides": 2, "padding": "valid"},
        {"dilation_rate": 2, "padding": "same"},
        {"kernel_size": (2, 3), "padding": "same"},
    ],
)
def test_second_moment_is_that_of_the_patches(settings: dict[str, object]) -> None:
    layer = layers.Conv2D(4, **{"kernel_size": 3, **settings}, name="conv")
    inputs = keras.Input((7, 9, 2))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layer(inputs)))
    samples = np.random.default_rng(0).normal(size=(10, 7, 9, 2)).astype(np.float32)
    moments = collect_moments(model, {"conv": layer}, samples, batch_size=4)["conv"]
    rows = by_hand(layer, samples)
    np.testing.assert_allclose(moments.second, rows.T @ rows / 10, rtol=1e-5, atol=1e-4)
    assert moments.rows_seen == len(rows)
    known = {tuple(np.round(row, 4)) for row in rows.astype(np.float32)}
    assert all(tuple(np.round(row, 4)) in known for row in moments.rows)


def test_gradient_moment_of_a_softmax_answer() -> None:
    """At the logits, Fisher is diag(p) - p p^T, averaged over the samples."""
    layer = layers.Dense(4, name="dense")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Softmax()(layer(inputs)))
    samples = np.random.default_rng(0).normal(size=(6000, 6)).astype(np.float32)
    found = collect_moments(model, {"dense": layer}, samples, batch_size=500)["dense"]
    p = model.predict(samples, verbose=0).astype(np.float64)
    expected = np.diag(p.mean(axis=0)) - p.T @ p / len(p)
    assert found.gradient is not None
    np.testing.assert_allclose(found.gradient, expected, atol=0.01)


def test_sampling_positions_keeps_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(128)
    chosen = {"conv0b": model.get_layer("conv0b")}
    whole = collect_moments(model, chosen, samples)["conv0b"]
    monkeypatch.setattr(patches, "SUMMED_ROWS", 64 * len(samples))
    monkeypatch.setattr(patches, "SUMMED_ROWS_PER_INPUT", 1)
    part = collect_moments(model, chosen, samples)["conv0b"]
    assert part.rows_seen < whole.rows_seen / 2
    assert np.linalg.norm(part.second - whole.second) < 0.05 * np.linalg.norm(whole.second)


def test_frozen_layers_have_gradients_too() -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(32)
    model.trainable = False
    found = collect_moments(model, {"conv0": model.get_layer("conv0")}, samples)["conv0"]
    assert found.gradient is not None
    assert np.trace(found.gradient) > 0


def test_seed_decides_everything() -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(64)
    chosen = {"hidden": model.get_layer("hidden")}
    first, second = (collect_moments(model, chosen, samples, seed=3)["hidden"] for _ in "ab")
    np.testing.assert_array_equal(first.second, second.second)
    np.testing.assert_array_equal(first.rows, second.rows)
    assert first.gradient is not None
    np.testing.assert_array_equal(first.gradient, second.gradient)


def test_model_is_left_as_it_was() -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(32)
    before = model.predict_on_batch(samples)
    collect_moments(model, {"hidden": model.get_layer("hidden")}, samples)
    assert "call" not in vars(model.get_layer("hidden"))
    np.testing.assert_array_equal(model.predict_on_batch(samples), before)


def test_fewer_rows_than_inputs_are_kept_as_the_root() -> None:
    samples = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    inputs = keras.Input((30,))
    model = keras.Model(inputs, keras.layers.Dense(4, name="dense")(inputs))
    found = collect_moments(model, {"dense": model.get_layer("dense")}, samples)["dense"]
    assert found.second.shape == (12, 30)
    np.testing.assert_allclose(found.full_second(), samples.T @ samples / 12, atol=1e-5)


def test_rows_too_wide_for_a_full_matrix_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moment, "MAX_FULL_WIDTH", 8)
    monkeypatch.setattr(second_moment, "ROOT_ROWS", 400)
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(20_000, 450)) * np.linspace(0.5, 2, 450)).astype(np.float32)
    sums = second_moment.SecondMoment(450)
    for part in np.split(rows, [7, 300, 450, 9_000]):
        sums.add(part)
    root = sums.total()
    assert root.shape == (400, 450)
    assert sums.rows == 20_000
    energy = np.einsum("qn,qn->n", root, root).sum() / np.sum(rows**2)
    assert energy == pytest.approx(1, abs=0.05)


def test_inputs_that_are_not_finite() -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(32)
    broken = samples.astype(np.float32)
    broken[3] = np.nan
    with pytest.raises(DataError, match="input of layer 'conv0' is not finite"):
        collect_moments(model, {"conv0": model.get_layer("conv0")}, broken)


def test_a_layer_that_sees_nothing_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model, (samples, _) = tiny_cnn(), tiny_arrays(32)
    model.get_layer("hidden").bias.assign(np.full(32, -1e6))
    with caplog.at_level("WARNING", "lrf"):
        found = collect_moments(model, {"answer": model.get_layer("answer")}, samples)["answer"]
    assert "layer 'answer' sees nothing but zeros on the calibration samples" in caplog.text
    assert not found.second.any()
