from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_cnn

from lrf_core.errors import ExportError
from lrf_core.export import LitertModel, to_litert, to_saved_model
from lrf_core.models.load import model_digest


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(seed=3)


@pytest.fixture(scope="module")
def exported(model: keras.Model) -> LitertModel:
    return LitertModel(to_litert(model))


def with_layer_unknown_to_litert() -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.ops.erfinv(keras.layers.Dense(2)(inputs)), name="odd")


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
    model: keras.Model, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = model_digest(model)
    LitertModel(to_litert(model)).predict(tiny_arrays(3)[0])
    to_saved_model(model, tmp_path / "saved")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert model_digest(model) == before


def test_a_layer_that_litert_has_not_is_one_clear_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"LiteRT cannot express model 'odd'.*Erfinv") as caught:
        to_litert(with_layer_unknown_to_litert())
    assert "\n" not in str(caught.value)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_layer_that_litert_refuses_to_run_is_one_clear_line() -> None:
    inputs = keras.Input((4, 4, 4, 4))
    grouped = keras.Model(inputs, keras.layers.Conv3D(4, 3, groups=2)(inputs))
    with pytest.raises(ExportError, match="LiteRT"):
        LitertModel(to_litert(grouped)).predict(np.zeros((1, 4, 4, 4, 4), np.float32))


def test_content_that_is_no_model_is_refused() -> None:
    with pytest.raises(ExportError, match="LiteRT refuses the model"):
        LitertModel(b"no flatbuffer at all")


def test_samples_of_another_shape_are_refused(exported: LitertModel) -> None:
    with pytest.raises(ExportError, match="LiteRT cannot run the model"):
        exported.predict(np.zeros((1, 5, 5, 3), np.uint8))


def test_a_saved_model_answers_the_same(model: keras.Model, tmp_path: Path) -> None:
    import tensorflow as tf

    served = tf.saved_model.load(str(to_saved_model(model, tmp_path / "saved")))
    samples = tiny_arrays(3)[0].astype(np.float32)
    answers = served.serve(samples).numpy()
    np.testing.assert_allclose(answers, model.predict_on_batch(samples), rtol=1e-5, atol=1e-6)


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    model: keras.Model, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written as a SavedModel") as caught:
        to_saved_model(model, tmp_path / "file" / "saved")
    assert "\n" not in str(caught.value)
