from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from exportable import model_of, samples_for
from tiny import tiny_arrays, tiny_cnn

from lrf_core.errors import ExportError
from lrf_core.export import to_saved_model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(seed=3)


def test_a_saved_model_answers_the_same(model: keras.Model, tmp_path: Path) -> None:
    import tensorflow as tf

    served = tf.saved_model.load(str(to_saved_model(model, tmp_path / "saved")))
    samples = tiny_arrays(3)[0].astype(np.float32)
    answers = served.serve(samples).numpy()
    np.testing.assert_allclose(answers, model.predict_on_batch(samples), rtol=1e-5, atol=1e-6)


def test_keras_takes_it_as_a_layer(tmp_path: Path) -> None:
    model = model_of("dict_of_inputs")
    samples = samples_for(model, 3)
    layer = keras.layers.TFSMLayer(str(to_saved_model(model, tmp_path / "saved")), "serve")
    answers = layer(samples)
    for key, expected in model.predict_on_batch(samples).items():
        np.testing.assert_allclose(answers[key], expected, rtol=1e-4, atol=1e-5)


def test_writing_says_nothing(
    model: keras.Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to_saved_model(model, tmp_path / "saved")
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    model: keras.Model, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written as a SavedModel") as caught:
        to_saved_model(model, tmp_path / "file" / "saved")
    assert "\n" not in str(caught.value)
