"""`.npz` files, and the checks that all sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_cnn

from lrf_core.data import Data, open_data
from lrf_core.errors import DataError, ModelError

SHAPE = (8, 6, 3)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(SHAPE, classes=4)


def opened(folder: Path, model: keras.Model, seed: int = 0, **arrays: Any) -> Data:
    file = folder / "samples.npz"
    np.savez(file, **arrays)
    return open_data(str(file), model, seed)


def samples(count: int = 40, **changes: Any) -> dict[str, Any]:
    x, y = tiny_arrays(count, SHAPE)
    return {"x": x, "y": y} | changes


def parts(**changes: Any) -> dict[str, Any]:
    (x, y), (u, v) = tiny_arrays(20, SHAPE), tiny_arrays(8, SHAPE, seed=1)
    return {"x_train": x, "y_train": y, "x_test": u, "y_test": v} | changes


def test_whole_arrays_are_divided_80_to_20_within_each_class(tmp_path: Path, model) -> None:
    arrays = samples(100)
    data = opened(tmp_path, model, **arrays)
    assert (data.train.count, data.test.count) == (80, 20)
    assert np.bincount(data.train.labels).tolist() == [20] * 4
    assert np.bincount(data.test.labels).tolist() == [5] * 4
    assert data.class_names == ("0", "1", "2", "3")
    assert data.source == str(tmp_path / "samples.npz")


def test_both_parts_together_are_the_samples_given(tmp_path: Path, model) -> None:
    arrays = samples(40)
    data = opened(tmp_path, model, **arrays)
    found = {
        (x.tobytes(), int(y))
        for split in (data.train, data.test)
        for x, y in zip(*split.arrays(), strict=True)
    }
    assert found == {(x.tobytes(), int(y)) for x, y in zip(*arrays.values(), strict=True)}
    assert len(found) == 40


def test_given_parts_are_kept_as_they_are(tmp_path: Path, model) -> None:
    arrays = parts()
    data = opened(tmp_path, model, **arrays)
    assert np.array_equal(data.train.arrays()[0], arrays["x_train"])
    assert np.array_equal(data.train.labels, arrays["y_train"])
    assert np.array_equal(data.test.arrays()[0], arrays["x_test"])
    assert np.array_equal(data.test.labels, arrays["y_test"])
    assert data.train.arrays()[0].dtype == np.uint8


def test_the_division_depends_on_the_seed_alone(tmp_path: Path, model) -> None:
    arrays = samples(100)
    first, again, other = (opened(tmp_path, model, seed, **arrays) for seed in (3, 3, 4))
    assert np.array_equal(first.test.arrays()[0], again.test.arrays()[0])
    assert not np.array_equal(first.test.arrays()[0], other.test.arrays()[0])


def test_the_digest_is_of_the_content(tmp_path: Path, model) -> None:
    arrays = samples()
    digest = opened(tmp_path, model, **arrays).digest
    (tmp_path / "elsewhere").mkdir()
    assert opened(tmp_path / "elsewhere", model, 7, **arrays).digest == digest
    arrays["x"][0, 0, 0, 0] ^= 1
    assert opened(tmp_path, model, **arrays).digest != digest
    arrays["x"][0, 0, 0, 0] ^= 1
    arrays["y"][0] = (arrays["y"][0] + 1) % 4
    assert opened(tmp_path, model, **arrays).digest != digest


@pytest.mark.parametrize(
    "form",
    [
        lambda y: np.eye(4, dtype=np.float32)[y],
        lambda y: np.eye(4, dtype=bool)[y],
        lambda y: y[:, None].astype(np.uint8),
        lambda y: y.astype(np.float64),
    ],
    ids=["one-hot", "one-hot bool", "column", "whole floats"],
)
def test_labels_of_any_form_become_class_ids(tmp_path: Path, model, form) -> None:
    arrays = parts()
    expected = arrays["y_train"]
    data = opened(tmp_path, model, **(arrays | {"y_train": form(expected)}))
    assert data.train.labels.dtype == np.int64
    assert np.array_equal(data.train.labels, expected)


def test_float_samples_keep_their_type(tmp_path: Path, model) -> None:
    arrays = samples()
    data = opened(tmp_path, model, x=arrays["x"].astype(np.float16), y=arrays["y"])
    assert data.train.arrays()[0].dtype == np.float16


def test_a_model_of_any_image_size_takes_any(tmp_path: Path) -> None:
    model = tiny_cnn((None, None, 3))
    assert opened(tmp_path, model, **samples()).train.arrays()[0].shape[1:] == SHAPE


def with_value(value: float) -> dict[str, Any]:
    x = samples()["x"].astype(np.float32)
    x[17, 0, 0, 0] = value
    return samples(x=x)


def soft(y: np.ndarray) -> np.ndarray:
    return np.full((len(y), 4), 0.25)


Y = samples()["y"]
BAD = {
    "no samples": ({}, "must hold the arrays x and y.*found: nothing"),
    "other names": ({"images": np.zeros(3), "labels": np.zeros(3)}, "found: images, labels"),
    "no labels": ({"x": samples()["x"]}, "has no labels y .*found: x"),
    "no labels of parts": (
        {"x_train": samples()["x"], "x_test": samples()["x"]},
        "no labels y_train and y_test",
    ),
    "objects": (samples(y=np.array([{}] * 40, dtype=object)), "Python objects"),
    "text": (samples(x=np.full((40, *SHAPE), "a")), "samples must be numbers"),
    "complex": (samples(x=samples()["x"].astype(complex)), "samples must be numbers"),
    "scalar": (samples(x=np.float32(1)), r"shape \(\).*takes samples of shape \(8, 6, 3\)"),
    "channels first": (
        samples(x=samples()["x"].transpose(0, 3, 1, 2)),
        r"np\.transpose\(x, \(0, 2, 3, 1\)\)",
    ),
    "flat": (samples(x=samples()["x"].reshape(40, -1)), r"x\.reshape\(-1, 8, 6, 3\)"),
    "other size": (samples(x=np.zeros((40, 9, 9, 3), np.uint8)), "resize the samples"),
    "NaN": (with_value(np.nan), "sample 17 holds NaN"),
    "infinite": (with_value(-np.inf), "sample 17 holds NaN or infinite"),
    "lengths differ": (samples(y=Y[:-1]), "40 samples but 39 labels"),
    "label too large": (samples(y=Y + 2), "class ids 2 to 5, but the model has 4 outputs"),
    "label from 1": (samples(y=Y + 1), "subtract 1"),
    "label negative": (samples(y=Y - 1), "class ids -1 to 2"),
    "label a fraction": (samples(y=Y + 0.5), "fractions"),
    "label NaN": (samples(y=np.where(Y > 0, Y, np.nan)), "fractions or NaN"),
    "label text": (samples(y=Y.astype(str)), "class ids or one-hot"),
    "one-hot too wide": (samples(y=np.eye(5)[Y]), "one-hot for 5 classes.*4 outputs"),
    "soft labels": (samples(y=soft(Y)), "not one-hot"),
    "labels of rank 3": (samples(y=np.zeros((40, 2, 2))), r"class ids \(n,\) or one-hot"),
    "labels of rank 0": (samples(y=np.int64(1)), r"class ids \(n,\)"),
    "too few": (samples(8), "too few samples: 4 to train on and 4"),
    "no test samples": (
        parts(x_test=np.zeros((0, *SHAPE)), y_test=np.zeros(0)),
        "too few samples: 20 to train on and 0",
    ),
    "bad test part": (parts(y_test=np.full(8, 9)), r"\(test\) labels holds class ids 9"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(tmp_path: Path, model, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path, model, **arrays)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "samples.npz") in str(caught.value)


def test_a_missing_channel_axis_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\[\.\.\., None\]"):
        opened(tmp_path, tiny_cnn((8, 6, 1)), x=np.zeros((40, 8, 6)), y=Y)


def npy(file: Path) -> None:
    with file.open("wb") as handle:
        np.save(handle, np.zeros(3))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_bytes(b"not a zip"), "cannot read .* as an .npz file"),
        (lambda file: file.write_bytes(b""), "cannot read"),
        (npy, "single array"),
    ],
    ids=["no archive", "empty", "npy"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, model, write, message: str) -> None:
    file = tmp_path / "samples.npz"
    write(file)
    with pytest.raises(DataError, match=message):
        open_data(str(file), model)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_damaged_in_the_middle_is_refused(tmp_path: Path, model, compressed: bool) -> None:
    file = tmp_path / "samples.npz"
    (np.savez_compressed if compressed else np.savez)(file, **samples())
    content = bytearray(file.read_bytes())
    content[2000:2100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*samples\.npz"):
        open_data(str(file), model)


def test_pickled_objects_are_never_unpickled(tmp_path: Path, model) -> None:
    marker = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (marker,))

    x = np.array([Trap()], dtype=object)
    with pytest.raises(DataError, match="Python objects"):
        opened(tmp_path, model, x=x, y=np.zeros(1))
    assert not marker.exists()


def model_of(*widths: int, rank: int = 2) -> keras.Model:
    inputs = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(inputs)
    outputs = [keras.layers.Dense(width)(flat) for width in widths]
    if rank > 2:
        outputs = [keras.layers.Conv2D(4, 1)(inputs)]
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


@pytest.mark.parametrize(
    ("model_", "message"),
    [
        (model_of(1), "two or more classes"),
        (model_of(4, rank=4), "needs a classifier"),
    ],
    ids=["one class", "feature map"],
)
def test_a_model_of_a_kind_not_supported_is_refused(tmp_path: Path, model_, message) -> None:
    with pytest.raises(ModelError, match=message):
        opened(tmp_path, model_, **samples())


def test_a_sequential_model_is_served(tmp_path: Path) -> None:
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4)]
    assert opened(tmp_path, keras.Sequential(layers), **samples()).train.count == 32
