from __future__ import annotations

import itertools
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_cnn

from lrf_core.data import Data, open_data
from lrf_core.errors import DataError

SHAPE = (8, 6, 3)
HEAD = """
import numpy as np
import tensorflow as tf
from tiny import tiny_arrays

def dataset(count=40, seed=0):
    return tf.data.Dataset.from_tensor_slices(tiny_arrays(count, (8, 6, 3), seed=seed))

"""
_number = itertools.count()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(SHAPE, classes=4)


@pytest.fixture
def module(tmp_path: Path, monkeypatch):
    """Writes a module into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(body: str, head: str = HEAD) -> str:
        name = f"samples_{next(_number)}"
        (tmp_path / f"{name}.py").write_text(head + body)
        return name

    return write


def opened(module, model, result: str, seed: int = 0) -> Data:
    return open_data(f"{module(f'def load(): return {result}')}:load", model, seed)


@pytest.mark.parametrize("batched", ["", ".batch(7)"])
def test_one_dataset_is_divided(module, model, batched: str) -> None:
    data = opened(module, model, "dataset()" + batched)
    assert (data.train.count, data.test.count) == (32, 8)
    together = np.concatenate([data.train.arrays()[0], data.test.arrays()[0]])
    expected = tiny_arrays(40, SHAPE)[0]
    assert sorted(x.tobytes() for x in together) == sorted(x.tobytes() for x in expected)


@pytest.mark.parametrize("batched", ["", ".batch(7)"])
def test_a_pair_of_datasets_is_kept_apart(module, model, batched: str) -> None:
    data = opened(module, model, f"(dataset(){batched}, dataset(12, seed=1){batched})")
    for split, (x, y) in (
        (data.train, tiny_arrays(40, SHAPE)),
        (data.test, tiny_arrays(12, SHAPE, seed=1)),
    ):
        assert np.array_equal(split.arrays()[0], x)
        assert np.array_equal(split.labels, y)


def test_one_hot_labels_and_unknown_length_are_read(module, model) -> None:
    one_hot = ".map(lambda x, y: (x, tf.one_hot(y, 4))).filter(lambda x, y: True).batch(16)"
    data = opened(module, model, f"(dataset(){one_hot}, dataset(12, seed=1))")
    assert np.array_equal(data.train.labels, tiny_arrays(40, SHAPE)[1])


def test_a_dataset_of_unknown_rank_is_read_as_batches(module, model) -> None:
    source = (
        "tf.data.Dataset.from_generator(lambda: iter([tiny_arrays(40, (8, 6, 3))]), "
        "output_types=(tf.uint8, tf.int64))"
    )
    assert opened(module, model, source).train.count == 32


def test_a_shuffled_dataset_gives_the_same_split_twice(module, model) -> None:
    source = f"{module('def load(): return dataset().shuffle(40)')}:load"
    first, again, other = (open_data(source, model, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.test.arrays()[0], again.test.arrays()[0])
    assert not np.array_equal(first.test.arrays()[0], other.test.arrays()[0])


def test_the_digest_is_of_the_content(module, model) -> None:
    first, again, other = (
        opened(module, model, f"dataset({count})").digest for count in (40, 40, 44)
    )
    assert first == again != other


def test_the_search_path_is_left_as_it_was(module, model) -> None:
    before = list(sys.path)
    opened(module, model, "dataset()")
    assert sys.path == before


BAD_RESULTS = {
    "no dataset": ("[1, 2, 3]", "returned a list of int, int, int; it must return"),
    "nothing": ("None", "returned a NoneType"),
    "arrays": ("tiny_arrays(40, (8, 6, 3))", "returned a tuple of ndarray, ndarray"),
    "no labels": ("dataset().map(lambda x, y: x)", r"must be pairs \(x, y\)"),
    "dictionaries": ("dataset().map(lambda x, y: {'x': x, 'y': y})", r"must be pairs \(x, y\)"),
    "endless": ("dataset().repeat()", "never ends"),
    "empty": ("dataset().take(0)", "is empty"),
    "other rank": ("dataset().map(lambda x, y: (x[0, 0], y))", r"samples of shape \(3,\)"),
    "other shape": ("dataset().map(lambda x, y: (x[:4], y))", "resize the samples"),
    "label too large": ("dataset().map(lambda x, y: (x, y + 9))", "class ids 9 to 12"),
    "fails when read": (
        "dataset().map(lambda x, y: (x, tf.gather([0, 1], y)))",
        "failed while it was read: InvalidArgumentError",
    ),
    "too few": ("(dataset(), dataset(1))", "too few samples"),
}


@pytest.mark.parametrize(("result", "message"), BAD_RESULTS.values(), ids=BAD_RESULTS.keys())
def test_a_bad_result_is_refused(module, model, result: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(module, model, result)
    assert "\n" not in str(caught.value)


def test_a_function_that_raises_is_named_with_its_reason(module, model) -> None:
    name = module("def load(): raise RuntimeError('disk on fire')")
    with pytest.raises(DataError, match=f"{name}:load failed: RuntimeError: disk on fire"):
        open_data(f"{name}:load", model)


def test_a_missing_function_is_named(module, model) -> None:
    with pytest.raises(DataError, match="has no function 'nothing'"):
        open_data(f"{module('')}:nothing", model)


def test_a_missing_module_is_named(module, model) -> None:
    with pytest.raises(DataError, match="no module 'not_there'"):
        open_data("not_there:load", model)


def test_a_module_that_needs_another_that_is_missing_says_which(module, model) -> None:
    name = module("", head="import not_installed_anywhere\n")
    with pytest.raises(DataError, match=r"importing the module failed.*not_installed_anywhere"):
        open_data(f"{name}:load", model)


def test_a_module_with_a_syntax_error_says_so(module, model) -> None:
    name = module("", head="def load(:\n")
    with pytest.raises(DataError, match="SyntaxError"):
        open_data(f"{name}:load", model)
