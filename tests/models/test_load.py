"""Models are read safely, refused clearly, and named by their content."""

from __future__ import annotations

import json
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


def with_lambda(ran: Path) -> keras.Model:
    """A model whose Lambda leaves a mark when it is called, or made."""

    def call(x: object, path: str = str(ran)) -> object:
        __import__("pathlib").Path(path).touch()
        return x

    return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(call, name="code")])


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.json"])
def test_lambda_layers_are_not_loaded(name: str, tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / name
    model = with_lambda(ran)
    if path.suffix == ".json":
        path.write_text(model.to_json())
    else:
        model.save(path)
    ran.unlink()
    with pytest.raises(ModelError, match=r"layer 'code' is arbitrary code \(Lambda\)") as caught:
        load_model(path, path)
    assert "\n" not in str(caught.value)
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
def test_layers_that_load_code_are_not_made(kind: str, tmp_path: Path) -> None:
    config = json.loads(sequential().to_json())
    config["config"]["layers"][1].update(class_name=kind, config={"name": "code"})
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"layer 'code' is arbitrary code \({kind}\)"):
        load_model(tmp_path / "model.json", tmp_path / "none.weights.h5")


def test_functions_of_other_modules_are_not_looked_up(tmp_path: Path) -> None:
    config = json.loads(sequential().to_json())
    config["config"]["layers"][1]["config"]["activation"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    (tmp_path / "model.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="function that is not known here"):
        load_model(tmp_path / "model.json", tmp_path / "none.weights.h5")


def test_a_vocabulary_is_not_read_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    inputs = keras.Input((1,), dtype="string")
    words = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="words")
    model = keras.Model(inputs, words(inputs))
    config = model.to_json().replace('["a", "b"]', json.dumps(str(tmp_path / "secret.txt")))
    assert "secret.txt" in config
    (tmp_path / "model.json").write_text(config)
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ModelError, match="vocabulary file outside of the model archive"):
        load_model(tmp_path / "model.json", tmp_path / "model.weights.h5")


def test_subclassed_models_of_an_unknown_class_are_refused(tmp_path: Path) -> None:
    model = Subclassed()
    model(np.zeros((1, 4)))
    model.save(tmp_path / "subclassed.keras")
    with pytest.raises(ModelError, match="custom or subclassed") as caught:
        load_model(tmp_path / "subclassed.keras")
    assert "register_keras_serializable" in str(caught.value)


@pytest.mark.parametrize("make", [tiny_cnn, sequential])
def test_an_h5_file(make: type, tmp_path: Path) -> None:
    model = make()
    model.compile("adam", "mse")
    model.save(tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    assert not loaded.optimizer.built, "the state of Adam was read"
    for before, after in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("weights", ["model.weights.h5", "model.h5", "model.keras"])
def test_a_config_with_weights(weights: str, tmp_path: Path) -> None:
    model = tiny_cnn()
    (tmp_path / "model.json").write_text(model.to_json())
    if weights.endswith(".weights.h5"):
        model.save_weights(tmp_path / weights)
    else:
        model.save(tmp_path / weights)
    loaded = load_model(tmp_path / "model.json", tmp_path / weights)
    assert model_digest(loaded) == model_digest(model)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_loss_of_ones_own_does_no_harm(tmp_path: Path) -> None:
    class Loss(keras.losses.Loss):
        def call(self, y: object, answers: object) -> object:
            return answers

    for loss in (lambda y, answers: answers, Loss()):
        model = sequential()
        model.compile("adam", loss=loss)
        (tmp_path / "model.json").write_text(model.to_json())
        model.save_weights(tmp_path / "model.weights.h5")
        assert not load_model(tmp_path / "model.json", tmp_path / "model.weights.h5").compiled
        model.save(tmp_path / "model.keras")
        assert not load_model(tmp_path / "model.keras").compiled


def test_a_config_without_weights(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(sequential().to_json())
    with pytest.raises(ModelError, match="config without weights; give a weights file"):
        load_model(tmp_path / "model.json")


def test_weights_without_a_config(tmp_path: Path) -> None:
    sequential().save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ModelError, match="holds weights, but no model; give the model's config"):
        load_model(tmp_path / "model.weights.h5")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(sequential().to_json())
    with pytest.raises(ModelError, match=r"no weights at .*gone.weights.h5"):
        load_model(tmp_path / "model.json", tmp_path / "gone.weights.h5")


@pytest.mark.parametrize("name", ["other.weights.h5", "other.h5", "other.txt"])
def test_weights_of_another_model(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(sequential().to_json())
    if name.endswith(".weights.h5"):
        tiny_cnn().save_weights(tmp_path / name)
    elif name.endswith(".h5"):
        tiny_cnn().save(tmp_path / name)
    else:
        (tmp_path / name).write_text("hello")
    with pytest.raises(ModelError, match=rf"weights in .*{name} do not fit") as caught:
        load_model(tmp_path / "model.json", tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}'])
def test_a_config_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ModelError, match=r"no (readable )?model config"):
        load_model(tmp_path / "model.json", tmp_path / "model.weights.h5")


def test_an_h5_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"model.h5 is no Keras model file; give a .keras file"):
        load_model(tmp_path / "model.h5")


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
