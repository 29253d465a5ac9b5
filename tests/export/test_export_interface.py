"""Names, order and structure of inputs and outputs; how far two answers are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from exportable import chain, model_of, samples_for

from lrf_core.errors import DataError, ExportError
from lrf_core.export import (
    LitertModel,
    OnnxModel,
    SavedModel,
    answering_like,
    closeness,
    random_samples,
    to_litert,
    to_onnx,
    to_saved_model,
)
from lrf_core.export.runtime import ExportedModel

layers = keras.layers


def every_export(model: keras.Model, folder: Path) -> list[ExportedModel]:
    return [
        LitertModel(to_litert(model)),
        OnnxModel(to_onnx(model)),
        SavedModel(to_saved_model(model, folder / "saved")),
    ]


def assert_same(found: Any, expected: Any) -> None:
    keras.tree.assert_same_structure(found, expected)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def lists() -> tuple[keras.Model, LitertModel]:
    model = model_of("list_of_inputs")
    return model, LitertModel(to_litert(model))


@pytest.fixture(scope="module")
def dicts() -> tuple[keras.Model, LitertModel]:
    model = model_of("dict_of_inputs")
    return model, LitertModel(to_litert(model))


def test_lists_go_by_the_names_of_inputs_and_the_order_of_outputs(tmp_path: Path) -> None:
    model = model_of("list_of_inputs")
    zeta, alpha = samples_for(model, 4)
    yes, also = model.predict_on_batch([zeta, alpha])
    for exported in every_export(model, tmp_path):
        assert set(exported.input_names) == {"zeta", "alpha"}
        answers = exported.run({"alpha": alpha, "zeta": zeta})
        assert_same(answers, {"output_0": np.asarray(yes), "output_1": np.asarray(also)})
        with pytest.raises(ExportError, match=r"takes the inputs .*; got zeta"):
            exported.run({"zeta": zeta})
        with pytest.raises(ExportError, match=r"alpha.*use run"):
            exported.predict(zeta)


def test_dicts_go_by_their_keys(tmp_path: Path) -> None:
    model = model_of("dict_of_inputs")
    samples = samples_for(model, 4)
    for exported in every_export(model, tmp_path):
        assert set(exported.input_names) == {"zeta", "alpha"}
        assert_same(exported.run(samples), dict(model.predict_on_batch(samples)))


@pytest.mark.parametrize("structures", ["lists", "dicts"])
def test_an_export_takes_and_answers_the_structures_of_the_model(
    structures: str, request: pytest.FixtureRequest
) -> None:
    model, exported = request.getfixturevalue(structures)
    samples = samples_for(model, 4)
    assert_same(answering_like(model, exported)(samples), model.predict_on_batch(samples))


def test_a_single_input_and_output_are_arrays() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5)])
    samples = samples_for(model, 3)
    answers = answering_like(model, LitertModel(to_litert(model)))(samples)
    assert_same(answers, np.asarray(model.predict_on_batch(samples)))


def test_a_list_of_one_input_is_one_input(tmp_path: Path) -> None:
    inputs = keras.Input((4,), name="signal")
    model = keras.Model([inputs], [layers.Dense(5)(inputs)])
    samples = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    for exported in every_export(model, tmp_path):
        assert closeness(model, exported, samples).largest_difference < 1e-5


def test_a_list_of_inputs_may_be_given_by_name(lists: tuple[keras.Model, LitertModel]) -> None:
    model, exported = lists
    zeta, alpha = samples_for(model, 4)
    assert closeness(model, exported, {"alpha": alpha, "zeta": zeta}).largest_difference < 1e-5
    assert closeness(model, exported, [zeta, alpha]).largest_difference < 1e-5


def test_names_that_tensorflow_allows_not_are_spelled_otherwise(tmp_path: Path) -> None:
    inputs = [keras.Input((3,), name=name) for name in ("left eye:0", "left_eye:0", "class", "1st")]
    model = keras.Model(inputs, layers.Dense(5)(layers.Concatenate()(inputs)))
    samples = samples_for(model, 4)
    names = {"left_eye_0", "left_eye_0_1", "input_class", "input_1st"}
    for exported in every_export(model, tmp_path):
        assert set(exported.input_names) == names
        assert closeness(model, exported, samples).largest_difference < 1e-5


def test_a_subclassed_model_is_exported_by_its_graph(tmp_path: Path) -> None:
    class Small(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(5)

        def call(self, inputs: Any) -> Any:
            return self.dense(keras.ops.relu(inputs))

    model = Small()
    samples = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    model(samples)
    for exported in every_export(model, tmp_path):
        assert closeness(model, exported, samples).largest_difference < 1e-5


def test_whole_numbers_go_where_the_model_takes_them(tmp_path: Path) -> None:
    inputs = keras.Input((6,), dtype="int32", name="words")
    x = layers.Flatten()(layers.Embedding(10, 4)(inputs))
    model = keras.Model(inputs, layers.Dense(5)(x))
    samples = np.arange(12).reshape(2, 6) % 10
    for exported in every_export(model, tmp_path):
        assert closeness(model, exported, samples).largest_difference < 1e-5


@pytest.mark.parametrize(
    ("structures", "wrong", "words"),
    [
        ("lists", np.zeros((2, 32)), r"a list or dict of arrays \(zeta, alpha\); got one"),
        ("lists", [np.zeros((2, 32))], "got a list of 1"),
        ("lists", [np.zeros((2, 32)), np.zeros((3, 32))], "same number of samples.* 2, 3"),
        ("lists", [np.zeros((2, 32)), np.zeros((2, 31))], r"'alpha' have shape \(2, 31\)"),
        ("dicts", {"zeta": np.zeros((2, 32))}, "got a dict of zeta"),
        ("dicts", 2 * [np.zeros((2, 32))], "a dict of arrays.* got a list of 2"),
        ("lists", {"zeta": np.zeros((2, 32)), "beta": 0}, "got a dict of zeta, beta"),
    ],
)
def test_samples_that_do_not_fit_the_model_are_refused(
    structures: str, wrong: Any, words: str, request: pytest.FixtureRequest
) -> None:
    model, exported = request.getfixturevalue(structures)
    with pytest.raises(DataError, match=words):
        closeness(model, exported, wrong)


def test_one_input_takes_one_array() -> None:
    model = chain((5,))
    exported = LitertModel(to_litert(model))
    with pytest.raises(DataError, match="takes one array; got a list of 1"):
        closeness(model, exported, [np.zeros((2, 5))])
    with pytest.raises(DataError, match=r"'signal' have shape \(5,\)"):
        closeness(model, exported, np.zeros(5))


def test_random_samples_have_the_structure_of_the_model_and_depend_on_the_seed() -> None:
    model = model_of("dict_of_inputs")
    samples = random_samples(model, 3, seed=1)
    assert {name: values.shape for name, values in samples.items()} == {
        "zeta": (3, 32),
        "alpha": (3, 32),
    }
    assert_same(samples, random_samples(model, 3, seed=1))
    assert not np.array_equal(samples["zeta"], random_samples(model, 3, seed=2)["zeta"])


def test_closeness_is_a_share_of_the_largest_answer() -> None:
    model = chain((5,))
    answer = model.get_layer("answer")
    answer.set_weights([np.eye(5, dtype=np.float32), np.zeros(5, np.float32)])
    exported = LitertModel(to_litert(model))
    answer.set_weights([np.eye(5, dtype=np.float32), np.array([0, 0, 0, 0, 2], np.float32)])
    found = closeness(model, exported, np.array([[3, 0, 0, 0, 0], [1, 0, 0, 0, 0]]))
    assert found.largest_difference == pytest.approx(2 / 3)
    assert found.same_class == 50.0
    assert found.samples == 2


def test_the_worst_output_counts(lists: tuple[keras.Model, LitertModel]) -> None:
    model, exported = model_of("list_of_inputs"), lists[1]
    kernel, bias = model.get_layer("also").get_weights()
    model.get_layer("also").set_weights([-kernel, bias])
    assert closeness(model, exported, samples_for(model)).largest_difference > 1.0


def test_there_is_no_class_where_no_output_has_classes(tmp_path: Path) -> None:
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    exported = LitertModel(to_litert(model))
    assert closeness(model, exported, samples_for(model)).same_class is None


def test_answers_that_are_not_finite_are_not_compared() -> None:
    model = chain((5,))
    exported = LitertModel(to_litert(model))
    samples = np.zeros((2, 5))
    samples[1, 0] = np.nan
    with pytest.raises(ExportError, match="model 'chain' answers these samples with NaN"):
        closeness(model, exported, samples)


def test_another_model_s_export_is_not_compared() -> None:
    exported = LitertModel(to_litert(chain((5,))))
    inputs = keras.Input((5,), name="signal")
    wider = keras.Model(inputs, layers.Dense(6)(inputs))
    with pytest.raises(ExportError, match="answers with"):
        closeness(wider, exported, np.zeros((2, 5)))
