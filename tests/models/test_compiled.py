"""Losses and metrics of compiled models: read safely, and used sample by sample."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from lrf_core.models.compiled import Compiled, compiled_of
from lrf_core.models.load import load_model

ANSWERS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0])
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]


def model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def saved(folder: Path, name: str, **compiled) -> Path:  # type: ignore[no-untyped-def]
    made = model()
    made.compile("adam", **compiled)
    made.save(folder / name)
    return folder / name


@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore")  # Keras calls .h5 legacy
def test_a_file_says_what_its_model_was_compiled_with(
    tmp_path: Path, name: str, sandbox: bool
) -> None:
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    top2 = keras.metrics.TopKCategoricalAccuracy(k=2, name="top2")
    file = saved(tmp_path, name, loss=loss, metrics=["accuracy", top2])
    found = compiled_of(load_model(file, sandbox=sandbox))
    assert not found.sparse
    assert np.asarray(found.losses(LABELS, ANSWERS)).shape == (6,)
    assert float(np.mean(found.losses(LABELS, ANSWERS))) == pytest.approx(
        float(loss(ONE_HOT, ANSWERS)), rel=1e-5
    )
    measured = found.measured(LABELS, ANSWERS)
    assert measured["accuracy"] == pytest.approx(np.mean(ANSWERS.argmax(1) == LABELS))
    assert measured["top2"] == pytest.approx(np.mean(ANSWERS.argmin(1) != LABELS))


def test_losses_by_name_and_by_function_are_used_alike() -> None:
    made = model()
    for loss in (
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
    ):
        made.compile("sgd", loss)
        probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(ANSWERS))
        losses = np.asarray(compiled_of(made).losses(LABELS, probabilities))
        assert losses == pytest.approx(-np.log(probabilities[np.arange(6), LABELS]), rel=1e-4)


def test_a_model_that_is_not_compiled_has_neither(tmp_path: Path) -> None:
    assert compiled_of(model()) == Compiled()
    model().save(tmp_path / "bare.keras")
    assert compiled_of(load_model(tmp_path / "bare.keras")) == Compiled()
    assert Compiled().measured(LABELS, ANSWERS) == {}


def test_a_loss_of_unknown_origin_is_not_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = saved(tmp_path, "model.keras", loss="mse")
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    evil = {"module": "os", "class_name": "system", "config": {}, "registered_name": "system"}
    config["compile_config"]["loss"] = evil
    content["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with caplog.at_level(logging.WARNING, logger="lrf"):
        assert compiled_of(load_model(file)) == Compiled()
    assert "not known here: a part of class 'os.system'" in caplog.text


def test_several_losses_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    inputs = keras.Input((4,))
    made = keras.Model(inputs, {"a": keras.layers.Dense(3, name="a")(inputs)})
    made.compile("sgd", {"a": "mse"})
    with caplog.at_level(logging.WARNING, logger="lrf"):
        assert compiled_of(made) == Compiled()
    assert "several losses" in caplog.text


def test_a_metric_that_does_not_fit_is_said_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    wrong = Compiled(keras.losses.get("mse"), (keras.metrics.MeanIoU(num_classes=2),))
    with caplog.at_level(logging.WARNING, logger="lrf"):
        assert wrong.measured(LABELS, ANSWERS[:3]) == {}
    assert "own metrics are not measured" in caplog.text
