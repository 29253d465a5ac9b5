"""Samples of models with several inputs, by the names of the inputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from lrf_core.data import Data, Split, open_data
from lrf_core.errors import DataError

layers = keras.layers
COUNT = 40


def two_inputs(as_dict: bool, *, texts: bool = False) -> keras.Model:
    image = keras.Input((8, 6, 3), name="image")
    side = keras.Input((1 if texts else 5,), name="side", dtype="string" if texts else None)
    encoded = side
    if texts:
        encoded = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(side)
    x = layers.Concatenate()([layers.Flatten()(image), encoded])
    # The first output with classes is the one that the labels belong to.
    outputs = [layers.Dense(1, name="age")(x), layers.Dense(4, name="label")(x)]
    return keras.Model({"side": side, "image": image} if as_dict else [image, side], outputs)


def arrays(suffix: str = "", count: int = COUNT) -> dict[str, Any]:
    random = np.random.default_rng(count)
    return {
        f"image{suffix}": random.integers(0, 255, (count, 8, 6, 3), dtype=np.uint8),
        f"side{suffix}": random.normal(size=(count, 5)).astype(np.float32),
        f"y{suffix}": np.arange(count) % 4,
    }


def opened(folder: Path, model: keras.Model, given: dict[str, Any]) -> Data:
    np.savez(folder / "samples.npz", **given)
    return open_data(str(folder / "samples.npz"), model)


@pytest.mark.parametrize("as_dict", [True, False])
def test_an_npz_file_has_one_array_for_each_input(tmp_path: Path, as_dict: bool) -> None:
    model = two_inputs(as_dict)
    given = {**arrays("_train", 20), **arrays("_test", 8)}
    data = opened(tmp_path, model, given)
    samples, labels = data.train.arrays()
    images, numbers = (samples["image"], samples["side"]) if as_dict else samples
    np.testing.assert_array_equal(images, given["image_train"])
    np.testing.assert_array_equal(numbers, given["side_train"])
    np.testing.assert_array_equal(labels, given["y_train"])
    assert data.class_names == ("0", "1", "2", "3")
    assert len(model.predict_on_batch(data.test.read(np.arange(8)))[1]) == 8


def test_a_whole_is_divided_alike_for_every_input(tmp_path: Path) -> None:
    given = arrays()
    data = opened(tmp_path, two_inputs(True), given)
    assert (data.train.count, data.test.count) == (32, 8)
    samples, _ = data.test.arrays()
    for image, numbers in zip(samples["image"], samples["side"], strict=True):
        at = int(np.flatnonzero((given["image"] == image).all(axis=(1, 2, 3)))[0])
        np.testing.assert_array_equal(numbers, given["side"][at])


def test_text_is_taken_where_the_model_takes_text(tmp_path: Path) -> None:
    model = two_inputs(True, texts=True)
    given = arrays() | {"side": np.array([["a"], ["b"]] * (COUNT // 2))}
    data = opened(tmp_path, model, given)
    assert len(model.predict_on_batch(data.test.read(np.arange(4)))[1]) == 4
    with pytest.raises(DataError, match="'side' holds float32 values; samples must be text"):
        opened(tmp_path, model, arrays())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": None}, "must hold the arrays image, side and y, or image_train, side_train"),
        ({"y": None}, "no labels y "),
        ({"side": np.zeros((COUNT, 4))}, r"'side' has shape \(40, 4\).*\(5,\)"),
        ({"side": np.zeros((COUNT - 1, 5))}, "'side' has 39 samples, but 'image' has 40"),
        ({"side": np.full((COUNT, 5), np.nan)}, "'side': sample 0 holds NaN"),
        ({"y": np.zeros(3)}, "40 samples but 3 labels"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {name: array for name, array in (arrays() | changes).items() if array is not None}
    with pytest.raises(DataError, match=message):
        opened(tmp_path, two_inputs(False), given)


MODULE = """
import numpy as np
import tensorflow as tf

def dataset(x):
    return tf.data.Dataset.from_tensor_slices((x, np.arange(40) % 4))

image = np.zeros((40, 8, 6, 3), np.uint8)
side = np.ones((40, 5), np.float32)

def by_name(): return dataset({"side": side, "image": image})
def in_order(): return dataset((image, side)).batch(7)
def swapped(): return dataset((side, image))
def other(): return dataset({"picture": image, "side": side})
def one(): return dataset(image)
def words(): return dataset({"image": image, "side": np.array([["a"], ["b"]] * 20)})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("two_inputs.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "two_inputs", raising=False)
    return "two_inputs"


def test_a_dataset_yields_a_dict_or_a_tuple(module: str) -> None:
    for as_dict, name in ((True, "by_name"), (False, "by_name"), (False, "in_order")):
        data = open_data(f"{module}:{name}", two_inputs(as_dict))
        samples, _ = data.train.arrays()
        side = samples["side"] if as_dict else samples[1]
        assert side.shape == (32, 5)


def test_a_dataset_of_text(module: str) -> None:
    model = two_inputs(True, texts=True)
    data = open_data(f"{module}:words", model)
    assert len(model.predict_on_batch(data.test.read(np.arange(4)))[1]) == 4


@pytest.mark.parametrize(
    ("as_dict", "name", "message"),
    [
        (False, "swapped", "yields samples of shape"),
        (True, "in_order", "give a dict with an array for each"),
        (False, "other", "has inputs picture, side, but the model takes image, side"),
        (False, "one", "one array for each sample, but the model takes image, side"),
    ],
)
def test_a_dataset_that_does_not_fit(module: str, as_dict: bool, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"{module}:{name}", two_inputs(as_dict))


def test_folders_of_images_cannot_feed_two_inputs(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    with pytest.raises(DataError, match="gives images only, but the model takes image, side"):
        open_data(str(tmp_path), two_inputs(False))


def test_a_split_of_several_arrays() -> None:
    samples = {"a": np.arange(10), "b": np.arange(10) * 2}
    split = Split.of(samples, np.arange(10)).take([3, 1, 2])
    assert split.count == 3
    np.testing.assert_array_equal(split.arrays()[0]["b"], [6, 2, 4])
    (first, labels), _ = split.batches(2)
    np.testing.assert_array_equal(first["a"], labels)
