"""Gradients for outputs of every kind: their second moment is the Fisher information."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lrf_core.calibration import collect_moments
from lrf_core.calibration.fisher import likelihoods_of
from lrf_core.data import Split

layers = keras.layers
SAMPLES = np.random.default_rng(0).normal(size=(4000, 6)).astype(np.float32)


def model_with(*outputs: keras.Layer) -> keras.Model:
    """A dense layer, called "features", and outputs made from it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    features = layers.Dense(4, name="features")(inputs)
    return keras.Model(inputs, [output(features) for output in outputs])


def gradient_at_features(model: keras.Model, samples: np.ndarray = SAMPLES) -> np.ndarray:
    found = collect_moments(
        model, {"features": model.get_layer("features")}, samples, batch_size=500
    )
    assert found["features"].gradient is not None
    return found["features"].gradient


def test_sigmoid_outputs_are_yes_or_no_each() -> None:
    """At the logits, Fisher is diag(p (1 - p)), averaged over the samples."""
    model = model_with(layers.Activation("sigmoid"))
    p = np.asarray(model.predict(SAMPLES, verbose=0), np.float64)
    expected = np.diag((p * (1 - p)).mean(axis=0))
    np.testing.assert_allclose(gradient_at_features(model), expected, atol=0.01)


def test_a_softmax_map_has_one_class_for_each_position() -> None:
    model = model_with(layers.Reshape((2, 2)), layers.Flatten())
    inputs = model.input
    pixels = layers.Softmax()(model.outputs[0])
    model = keras.Model(inputs, pixels)
    assert [one.kind for one in likelihoods_of(model, Split.of(SAMPLES[:16]))] == ["classes"]
    p = np.asarray(model.predict(SAMPLES, verbose=0), np.float64)
    blocks = [np.diag(p[:, i].mean(axis=0)) - p[:, i].T @ p[:, i] / len(p) for i in range(2)]
    expected = np.block([[blocks[0], np.zeros((2, 2))], [np.zeros((2, 2)), blocks[1]]])
    np.testing.assert_allclose(gradient_at_features(model), expected, atol=0.01)


def test_regression_is_gaussian_and_does_not_depend_on_the_unit() -> None:
    """With one output `w x`, Fisher is w w^T over the variance of the output."""
    fishers = []
    for unit in (1.0, 1000.0):
        model = model_with(layers.Dense(1, name="answer"))
        kernel = keras.ops.convert_to_numpy(model.get_layer("answer").kernel)
        model.get_layer("answer").kernel.assign(unit * kernel)
        batch = SAMPLES[:128]
        deviation = float(np.std(model.predict_on_batch(batch)))
        fishers.append(gradient_at_features(model))
        expected = (unit * kernel) @ (unit * kernel).T / deviation**2
        np.testing.assert_allclose(fishers[-1], expected, rtol=0.1, atol=1e-3)
    np.testing.assert_allclose(fishers[0], fishers[1], rtol=1e-4)


def test_the_losses_of_several_outputs_are_added() -> None:
    first, second = layers.Softmax(), layers.Dense(3, activation="sigmoid")
    both = gradient_at_features(model_with(first, second))
    alone = gradient_at_features(model_with(layers.Softmax()))
    assert np.trace(both) > 1.2 * np.trace(alone)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (layers.Softmax(), "classes"),
        (layers.Dense(3), "classes"),
        (layers.Dense(1), "gaussian"),
        (layers.Dense(1, activation="sigmoid"), "yes or no"),
        (layers.Dense(3, activation="sigmoid"), "yes or no"),
        (layers.Reshape((2, 2)), "gaussian"),
    ],
)
def test_what_an_output_means(output: keras.Layer, kind: str) -> None:
    copy = type(output).from_config(output.get_config())
    (found,) = likelihoods_of(model_with(copy), Split.of(SAMPLES[:16]))
    assert found.kind == kind


def test_an_output_of_class_ids_has_no_gradient() -> None:
    inputs = keras.Input((6,))
    features = layers.Dense(4, name="features")(inputs)
    model = keras.Model(inputs, [keras.ops.argmax(features, axis=-1), layers.Softmax()(features)])
    assert np.trace(gradient_at_features(model, SAMPLES[:500])) > 0
    model = keras.Model(inputs, keras.ops.argmax(features, axis=-1))
    found = collect_moments(model, {"features": model.get_layer("features")}, SAMPLES[:500])
    assert found["features"].gradient is None


def test_samples_of_several_inputs() -> None:
    image, numbers = keras.Input((6,), name="image"), keras.Input((3,), name="numbers")
    x = layers.Concatenate()([layers.Dense(4, name="features")(image), layers.Dense(2)(numbers)])
    model = keras.Model({"image": image, "numbers": numbers}, layers.Dense(3)(x))
    samples = {"numbers": np.ones((100, 3), np.float32), "image": SAMPLES[:100]}
    found = collect_moments(
        model, {"features": model.get_layer("features")}, samples, batch_size=32
    )
    rows = SAMPLES[:100].astype(np.float64)
    np.testing.assert_allclose(found["features"].second, rows.T @ rows / 100, rtol=1e-5)
