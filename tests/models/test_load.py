"""Models are read safely, refused clearly, and named by their content."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.errors import ArtifactError, ModelError
from lrf_core.models.load import load_model, model_digest, save_model


class Subclassed(keras.Model):
    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.dense = keras.layers.Dense(3)

    def call(self, inputs: object) -> object:
        return self.dense(inputs)


def sequential() -> keras.Model:
    return keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(3, name="dense")], name="small"
    )


@pytest.mark.parametrize("make", [tiny_cnn, sequential])
def test_digest_survives_saving_and_loading(make: type, tmp_path: Path) -> None:
    model = make()
    loaded = load_model(save_model(model, tmp_path))
    assert model_digest(loaded) == model_digest(model)


def test_digest_tells_weights_and_architecture_apart() -> None:
    model, same = sequential(), sequential()
    same.set_weights(model.get_weights())
    assert model_digest(same) == model_digest(model)
    same.layers[0].bias.assign([0.0, 0.0, 1e-6])
    assert model_digest(same) != model_digest(model)


def test_optimizer_state_is_not_saved(tmp_path: Path) -> None:
    model = sequential()
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    digest = model_digest(model)
    path = save_model(model, tmp_path)
    assert getattr(load_model(path), "optimizer", None) is None
    assert model_digest(load_model(path)) == digest


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model at .*gone.keras; give"):
        load_model(tmp_path / "gone.keras")


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04"])
def test_a_file_that_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad.keras is no Keras model file"):
        load_model(tmp_path / "bad.keras")


def test_a_zip_that_is_no_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"bad.keras is no readable Keras model"):
        load_model(tmp_path / "bad.keras")


def test_saved_model_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match=r"SavedModel; .* cannot be factorized"):
        load_model(tmp_path)


def test_lambda_layers_are_not_loaded(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="Lambda layer") as caught:
        load_model(tmp_path / "lambda.keras")
    assert "\n" not in str(caught.value)


def test_subclassed_models_are_refused(tmp_path: Path) -> None:
    model = Subclassed()
    model(np.zeros((1, 4)))
    model.save(tmp_path / "subclassed.keras")
    with pytest.raises(ModelError, match="custom or subclassed"):
        load_model(tmp_path / "subclassed.keras")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = sequential()
    model.layers[0].bias.assign([0.0, np.nan, 0.0])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(ModelError, match=r"weight '.*bias' holds NaN"):
        load_model(tmp_path / "nan.keras")


def test_nothing_half_written_where_saving_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        save_model(sequential(), tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
