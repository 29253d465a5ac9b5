from __future__ import annotations

import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from exportable import chain, model_of, samples_for
from tiny import tiny_arrays, tiny_cnn

from lrf_core.errors import DataError, ExportError
from lrf_core.export import (
    LitertModel,
    closeness,
    to_litert,
    to_litert_dynamic,
    to_litert_int8,
)
from lrf_core.models.load import model_digest

layers = keras.layers


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(seed=3)


@pytest.fixture(scope="module")
def exported(model: keras.Model) -> LitertModel:
    return LitertModel(to_litert(model))


def test_litert_answers_as_keras_does(model: keras.Model, exported: LitertModel) -> None:
    samples, _ = tiny_arrays(7)
    np.testing.assert_allclose(
        exported.predict(samples), model.predict_on_batch(samples), rtol=1e-4, atol=1e-6
    )


def test_litert_takes_any_number_of_samples(exported: LitertModel) -> None:
    samples, _ = tiny_arrays(5)
    whole = exported.predict(samples)
    one_by_one = np.concatenate([exported.predict(samples[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-5, atol=1e-7)


def test_answers_stay_as_they_were_when_more_is_predicted(exported: LitertModel) -> None:
    samples, _ = tiny_arrays(2)
    first = exported.predict(samples[:1])
    kept = first.copy()
    exported.predict(samples[1:])
    np.testing.assert_array_equal(first, kept)


def test_exporting_says_nothing_and_changes_nothing(
    model: keras.Model, capfd: pytest.CaptureFixture[str]
) -> None:
    before = model_digest(model)
    samples = tiny_arrays(3)[0]
    LitertModel(to_litert(model)).predict(samples)
    LitertModel(to_litert_int8(model, samples)).predict(samples)
    assert capfd.readouterr() == ("", "")
    assert model_digest(model) == before


def test_a_layer_that_litert_has_not_is_one_clear_line(capfd: pytest.CaptureFixture[str]) -> None:
    inputs = keras.Input((4,))
    odd = keras.Model(inputs, keras.ops.erfinv(layers.Dense(2)(inputs)), name="odd")
    with pytest.raises(ExportError, match=r"LiteRT cannot express model 'odd'.*Erfinv") as caught:
        to_litert(odd)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_grouped_conv3d_is_one_clear_line() -> None:
    inputs = keras.Input((4, 4, 4, 4))
    grouped = keras.Model(inputs, layers.Conv3D(4, 3, groups=2, name="wide")(inputs))
    with pytest.raises(ExportError, match=r"LiteRT cannot run layer 'wide'.*a Conv3D of 2 groups"):
        to_litert(grouped)


def test_content_that_is_no_model_is_refused() -> None:
    with pytest.raises(ExportError, match="LiteRT refuses the model"):
        LitertModel(b"no flatbuffer at all")


def test_samples_of_another_shape_are_refused(exported: LitertModel) -> None:
    with pytest.raises(ExportError, match="LiteRT cannot run the model"):
        exported.predict(np.zeros((1, 5, 5, 3), np.uint8))


def test_images_of_any_size_where_the_model_leaves_it_open() -> None:
    open_sized = chain((None, None, 3), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D())
    exported = LitertModel(to_litert(open_sized))
    for size in (5, 9):
        samples = np.random.default_rng(0).normal(size=(4, size, size, 3))
        assert closeness(open_sized, exported, samples).largest_difference < 1e-5


def test_channels_first_convolutions_stay_as_they_are_in_the_model() -> None:
    model = model_of("channels_first")
    before = model_digest(model)
    expected = model.predict_on_batch(samples_for(model))
    to_litert(model)
    assert model_digest(model) == before
    np.testing.assert_array_equal(model.predict_on_batch(samples_for(model)), expected)


@pytest.mark.parametrize("columns", [10, 16])
@pytest.mark.parametrize("kind", [layers.Conv1D, layers.Conv2D, layers.Conv3D])
def test_a_channels_first_bias_is_added_as_keras_adds_it(
    kind: type[keras.Layer], columns: int
) -> None:
    """Keras 3.15 adds it along the columns if these are 8, as many as there are channels."""
    rank = int(kind.__name__[-2])
    layer = kind(8, 3, data_format="channels_first", bias_initializer="random_normal")
    model = chain((3, *[5] * (rank - 1), columns), layer, layers.Flatten())
    exported = LitertModel(to_litert(model))
    assert closeness(model, exported, samples_for(model)).largest_difference < 1e-5


def test_random_layers_do_nothing_at_inference() -> None:
    augmented = chain((8, 8, 3), layers.RandomFlip(), layers.Conv2D(8, 3), layers.Flatten())
    exported = LitertModel(to_litert(augmented))
    assert closeness(augmented, exported, samples_for(augmented)).largest_difference < 1e-5


def test_int8_takes_and_answers_float32_and_holds_int8(model: keras.Model) -> None:
    samples, _ = tiny_arrays(64)
    quantized = LitertModel(to_litert_int8(model, samples))
    assert quantized.predict(samples).dtype == np.float32
    tensors = quantized._interpreter.get_tensor_details()
    in_float = {tensor["name"] for tensor in tensors if tensor["dtype"] == np.float32}
    assert len(in_float) == 2  # the input and the output
    assert closeness(model, quantized, samples).largest_difference < 0.05


def test_ranges_come_from_the_calibration_samples() -> None:
    keras.utils.set_random_seed(0)
    model = chain((16,), layers.Dense(32, activation="relu"))
    samples = samples_for(model)
    fitting = LitertModel(to_litert_int8(model, samples))
    too_narrow = LitertModel(to_litert_int8(model, samples / 100))
    assert closeness(model, fitting, samples).largest_difference < 0.05
    assert closeness(model, too_narrow, samples).largest_difference > 0.3


def test_operations_that_stay_in_float_are_named(caplog: pytest.LogCaptureFixture) -> None:
    normalized = chain((16,), layers.Dense(16), layers.LayerNormalization())
    with caplog.at_level(logging.WARNING, "lrf"):
        to_litert_int8(normalized, samples_for(normalized))
        to_litert_dynamic(model_of("chains_3d"))
    assert "stay in float32, as LiteRT does not run them in int8: NEG" in caplog.messages[0]
    assert "CONV_3D with float32 weights only" in caplog.messages[1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_calibration_samples_that_are_not_finite_are_refused(
    model: keras.Model, value: float
) -> None:
    samples = tiny_arrays(4)[0].astype(np.float32)
    samples[1, 0, 0, 0] = value
    with pytest.raises(DataError, match="hold NaN or infinite values"):
        to_litert_int8(model, samples)


def test_values_that_overflow_inside_are_refused() -> None:
    model = chain((4,), layers.Dense(8, name="huge", activation="tanh"))
    kernel, bias = model.get_layer("huge").get_weights()
    model.get_layer("huge").set_weights([np.full_like(kernel, 3e38), bias])
    assert np.isfinite(model.predict_on_batch(np.ones((1, 4)))).all()
    with pytest.raises(ExportError, match="NaN or infinite values inside"):
        to_litert_int8(model, np.ones((4, 4), np.float32))


def test_no_calibration_samples_are_refused(model: keras.Model) -> None:
    with pytest.raises(DataError, match="at least one"):
        to_litert_int8(model, tiny_arrays(4)[0][:0])


def test_a_flatbuffer_of_another_tool_runs_too(tmp_path: Path) -> None:
    import tensorflow as tf

    double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec((None, 3), name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([double.get_concrete_function()])
    exported = LitertModel(converter.convert())
    np.testing.assert_array_equal(exported.predict(np.ones((2, 3))), 2 * np.ones((2, 3)))
