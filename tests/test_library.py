"""The public API as its documentation shows it: examples run, every parameter is described."""

from __future__ import annotations

import doctest
import inspect
import re
from typing import Any

import keras
import numpy as np
import pytest
from tiny import tiny_arrays, tiny_cnn, train_tiny

import lrf_core as lrf
from lrf_core.errors import DataError, ModelError

PUBLIC = [(name, getattr(lrf, name)) for name in lrf.__all__]
FUNCTIONS = [pytest.param(value, id=name) for name, value in PUBLIC if inspect.isfunction(value)]
EXAMPLES = [
    pytest.param(value, id=name) for name, value in PUBLIC if ">>>" in (inspect.getdoc(value) or "")
]


@pytest.mark.parametrize("function", [*EXAMPLES, pytest.param(lrf.Data.from_arrays, id="arrays")])
def test_examples_run(function: Any) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in doctest.DocTestFinder(recurse=False).find(function, globs={}):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_describe_their_parameters(function: Any) -> None:
    text = inspect.getdoc(function) or ""
    described = set(re.findall(r"^    ([\w, ]+):", text, flags=re.MULTILINE))
    named = {name.strip() for names in described for name in names.split(",")}
    missing = set(inspect.signature(function).parameters) - named
    assert not missing


def test_a_model_is_compressed_in_memory() -> None:
    x_train, y_train = tiny_arrays(300, seed=1)
    x_test, y_test = tiny_arrays(100, seed=2)
    data = lrf.Data.from_arrays(x_train, y_train, x_test, np.eye(4)[y_test])
    model = train_tiny(tiny_cnn(), data, epochs=4)
    before = [weight.copy() for weight in model.get_weights()]
    result = lrf.compress(
        model,
        data,
        goal=lrf.Goal(params_reduction=0.3),
        explore=lrf.ExploreSpec(samples=64, methods=("svd", "tucker")),
        finetune=lrf.FinetuneSpec(epochs=1),
        gate=lrf.GateSpec(max_accuracy_drop=100),
    )
    assert result.verdict.passed
    assert result.model.count_params() == result.plan.after.params <= 0.7 * model.count_params()
    assert result.finetune.after_digest == result.verdict.candidate_digest
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_of_several_outputs_is_rejected_before_the_work() -> None:
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2, name=name)(inputs) for name in "ab"]
    data = lrf.Data.from_arrays(np.zeros((20, 4)), np.arange(20) % 2)
    with pytest.raises(ModelError, match="has 2 outputs"):
        lrf.compress(keras.Model(inputs, outputs), data)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros((20, 4)), np.arange(19) % 2), "x_train has 20 samples, y_train 19 labels"),
        ((np.zeros((20, 4)), np.full(20, 0.5)), "y_train must hold class ids"),
        ((np.zeros((20, 4)), np.full(20, -1)), "ids start at 0"),
        ((np.zeros((20, 4)), np.zeros((20, 3))), "not one-hot"),
        ((np.zeros((20, 4)), np.arange(20) % 2, np.zeros((5, 4))), "give both x_test and y_test"),
        ((np.zeros((4, 4)), np.arange(4) % 2), "too few samples"),
    ],
)
def test_arrays_that_are_no_data_are_rejected(arrays: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lrf.Data.from_arrays(*arrays)
