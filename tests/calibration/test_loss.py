"""A loss of the user's own, in place of the likelihood of the outputs."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from lrf_core.calibration import collect_moments
from lrf_core.errors import SpecError
from lrf_core.spec import ExploreSpec

layers = keras.layers
SAMPLES = np.random.default_rng(5).normal(size=(4000, 6)).astype(np.float32)
SOURCE = """
import keras
import tensorflow as tf

def squares(outputs, uniform):
    targets = keras.ops.stop_gradient(outputs) + tf.math.ndtri(uniform)
    return keras.ops.sum((outputs - targets) ** 2, axis=-1) / 2

def multi_label(outputs, uniform):
    labels = keras.ops.cast(uniform < keras.ops.sigmoid(outputs), "float32")
    return keras.ops.sum(
        keras.ops.binary_crossentropy(labels, outputs, from_logits=True), axis=-1
    )

def only_the_second(outputs):
    return 3.0 * outputs["b"][:, 0]

def scalar(outputs):
    return keras.ops.mean(outputs)

def broken(outputs):
    return outputs.nothing

def classes(outputs):
    return keras.ops.argmax(outputs, axis=-1)

def without_gradient(outputs):
    return keras.ops.sum(keras.ops.stop_gradient(outputs), axis=-1)
"""


@pytest.fixture(autouse=True)
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_losses.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


def model_with(outputs: object) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    features = layers.Dense(4, name="features")(inputs)
    return keras.Model(inputs, keras.tree.map_structure(lambda one: one(features), outputs))


def gradient(model: keras.Model, loss: str) -> np.ndarray | None:
    layer = {"features": model.get_layer("features")}
    return collect_moments(model, layer, SAMPLES, loss=loss)["features"].gradient


def kernel(layer: keras.Layer) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float64)


def test_regression_in_its_own_unit() -> None:
    """With unit noise on each target, Fisher is W W^T."""
    answer = layers.Dense(2)
    found = gradient(model_with(answer), "own_losses:squares")
    expected = kernel(answer) @ kernel(answer).T
    np.testing.assert_allclose(found, expected, atol=0.07 * np.abs(expected).max())


def test_several_labels_at_once() -> None:
    """Logits of independent labels; by themselves they look like those of one class."""
    answer = layers.Dense(3)
    model = model_with(answer)
    found = gradient(model, "own_losses:multi_label")
    p = 1 / (1 + np.exp(-np.asarray(model.predict(SAMPLES, verbose=0), np.float64)))
    W = kernel(answer)
    expected = W @ np.diag((p * (1 - p)).mean(axis=0)) @ W.T
    np.testing.assert_allclose(found, expected, atol=0.07 * np.abs(expected).max())


def test_outputs_come_in_the_models_structure() -> None:
    first, second = layers.Dense(3), layers.Dense(2)
    model = model_with({"a": first, "b": second})
    found = gradient(model, "own_losses:only_the_second")
    w = 3.0 * kernel(second)[:, :1]
    np.testing.assert_allclose(found, w @ w.T, rtol=1e-4)


def test_the_loss_does_not_depend_on_batches() -> None:
    model = model_with(layers.Dense(2))
    layer = {"features": model.get_layer("features")}
    one, other = (
        collect_moments(model, layer, SAMPLES, loss="own_losses:squares", batch_size=size)
        for size in (64, 900)
    )
    np.testing.assert_allclose(one["features"].gradient, other["features"].gradient, rtol=1e-4)


def test_a_loss_without_gradient_turns_sensitivity_off() -> None:
    assert gradient(model_with(layers.Dense(2)), "own_losses:without_gradient") is None


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "own_losses:scalar",
            r"returned float32 of shape \(\); it must return one loss per sample",
        ),
        ("own_losses:classes", "returned int32 of shape .* floats of shape"),
        ("own_losses:broken", "explore.loss own_losses:broken failed: AttributeError"),
        ("own_losses:nowhere", "module 'own_losses' has no function 'nowhere'"),
        ("no_such_losses:loss", "no module 'no_such_losses'"),
    ],
)
def test_losses_that_cannot_be_used(loss: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        gradient(model_with(layers.Dense(2)), loss)


def test_the_spec_takes_a_module_and_a_function() -> None:
    assert ExploreSpec(loss="a.b:loss").loss == "a.b:loss"
    with pytest.raises(ValueError, match="loss"):
        ExploreSpec(loss="losses.py")
