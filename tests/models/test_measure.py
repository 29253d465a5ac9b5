from __future__ import annotations

import logging
import time

import keras
import numpy as np
import pytest
import tiny

from lrf_core.artifacts import Cost
from lrf_core.data import Data, Split
from lrf_core.errors import DataError
from lrf_core.measurement.measure import accuracy, is_right, measure, predict
from lrf_core.measurement.timing import compare_latency, time_latency


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny.tiny_data(train=128, test=50)


@pytest.fixture(scope="module")
def model(data: Data) -> keras.Model:
    return tiny.train_tiny(tiny.tiny_cnn(residual=False), data, epochs=2)


def test_predict_keeps_the_order_whatever_the_batch_size(model: keras.Model, data: Data) -> None:
    expected = model.predict(data.test.arrays()[0].astype("float32"), verbose=0)
    for batch_size in (None, 1, 7, 50, 64):
        found = predict(model, data.test, batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_accuracy_is_the_percent_of_samples_right(model: keras.Model, data: Data) -> None:
    assert accuracy(model, data.test) == pytest.approx(tiny.accuracy(model, data.test))


def test_an_answer_with_nan_is_wrong_even_where_argmax_would_be_right() -> None:
    answers = np.array([[np.nan, 0.0], [1.0, 0.0], [0.0, 1.0]])
    split = Split.of(np.zeros((3, 1)), np.array([0, 0, 0]))
    assert is_right(answers, split).tolist() == [False, True, False]


def test_no_samples_and_no_labels_are_said_so(model: keras.Model, data: Data) -> None:
    with pytest.raises(DataError, match="no samples"):
        predict(model, data.test.take([]))
    with pytest.raises(DataError, match="no labels"):
        accuracy(model, Split.of(data.test.arrays()[0]))


def test_measure_gives_everything(model: keras.Model, data: Data) -> None:
    measures = measure(model, data.test, latency_repeats=3)
    assert measures.accuracy == pytest.approx(tiny.accuracy(model, data.test))
    assert measures.cost.params == model.count_params()
    assert isinstance(measures.cost, Cost)
    assert measures.weight_bytes == 4 * model.count_params()
    assert measures.samples == 50
    assert measures.keras_latency_ms is not None
    assert measures.litert_latency_ms is not None
    assert 0 < measures.litert_latency_ms < 1000
    assert 0 < measures.keras_latency_ms < 1000


def test_without_labels_all_but_accuracy_is_measured(model: keras.Model, data: Data) -> None:
    measures = measure(model, Split.of(data.test.arrays()[0]), latency_repeats=3)
    assert measures.accuracy is None
    assert measures.litert_latency_ms is not None


def test_what_litert_cannot_run_is_not_measured_and_logged(
    data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    odd = keras.Model(inputs, keras.layers.Dense(4)(keras.ops.erfinv(pooled / 256.0)))
    with caplog.at_level(logging.WARNING, logger="lrf"):
        measures = measure(odd, data.test, latency_repeats=3)
    assert measures.litert_latency_ms is None
    assert measures.keras_latency_ms is not None
    assert "LiteRT latency is not measured" in caplog.text


def test_two_runs_are_timed_in_turns_after_a_warm_up() -> None:
    ran: list[str] = []
    first, second = compare_latency(lambda: ran.append("a"), lambda: ran.append("b"), repeats=5)
    timed = ran[-10:]
    assert timed == ["a", "b"] * 5
    assert {"a", "b"} <= set(ran[:-10])
    assert first.repeats == second.repeats == 5


def test_latency_is_milliseconds_with_the_slow_tail_in_p95_only() -> None:
    slow = iter([False] * 20 + [True] * 3)
    latency = time_latency(lambda: time.sleep(0.03 if next(slow) else 0.002), repeats=20)
    assert 2.0 <= latency.median_ms < 20.0
    assert latency.p95_ms > latency.median_ms + 5.0


def test_the_slower_run_is_the_one_with_the_larger_median() -> None:
    fast, slow = compare_latency(lambda: time.sleep(0.001), lambda: time.sleep(0.005), repeats=5)
    assert slow.median_ms > 2 * fast.median_ms
