"""Classes, agreement and calibration, compared on the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from lrf_core.gate.classes import (
    OTHERS,
    as_probabilities,
    class_changes,
    class_warnings,
    confusion,
    expected_calibration_error,
)
from lrf_core.gate.comparison import Comparison, compare
from lrf_core.gate.interval import score_interval
from lrf_core.gate.metric import accuracy_metric

NAMES = ("cat", "dog", "elk")


def one_hot(classes: list[int]) -> np.ndarray:
    return np.eye(3)[classes]


def compared(labels: list[int], before: np.ndarray, after: np.ndarray) -> Comparison:
    return compare(
        before, after, np.array(labels), metric=accuracy_metric(), class_names=NAMES, seed=0
    )


def test_drop_and_agreement_are_counted_on_the_same_samples() -> None:
    # 3 of 4 right before, 1 of 4 after.
    found = compared([0, 1, 2, 0], one_hot([0, 1, 2, 1]), one_hot([0, 2, 1, 1]))
    assert found.accuracy.drop == pytest.approx(50.0)
    assert found.agreement == pytest.approx(50.0)
    low, high = found.accuracy.interval
    assert low <= found.accuracy.drop <= high
    change = found.accuracy.change(seed=0, confidence=0.95)
    assert (change.before, change.after, change.lost, change.won) == (75.0, 25.0, 2, 0)
    assert change.mcnemar_p == pytest.approx(0.25)
    assert change.bootstrap_interval is not None
    assert change.bootstrap_interval[0] <= change.drop <= change.bootstrap_interval[1]


def test_a_gain_is_a_negative_drop() -> None:
    found = compared([0, 1], one_hot([1, 1]), one_hot([0, 1]))
    assert found.accuracy.drop == pytest.approx(-50.0)


def test_the_class_that_loses_most_comes_first() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    before = np.array([0, 0, 0, 1, 1, 1, 1, 2, 0])
    after = np.array([0, 0, 0, 0, 1, 0, 0, 2, 0])
    changes = class_changes(labels, before, after, (*NAMES, "fox"))
    assert [(c.label, c.samples) for c in changes] == [("dog", 3), ("elk", 2), ("cat", 4)]
    assert [c.drop for c in changes] == pytest.approx([200 / 3, 0.0, -25.0])
    low, high = score_interval(2, 0, 3, 0.95)
    assert changes[0].interval == pytest.approx((100 * low, 100 * high))
    assert [(c.answered_before, c.answered_after) for c in changes] == [(4, 1), (1, 1), (4, 7)]


def test_classes_with_no_samples_or_few_are_warned_about() -> None:
    labels = np.repeat([0, 1, 2], [40, 19, 2])
    absent, few = class_warnings(labels, (*NAMES, "fox"))
    assert absent == "1 of 4 classes have no test samples (fox): nothing is known of them"
    assert few.startswith(
        "2 of 4 classes have fewer than 20 test samples (elk: 2, dog: 19): 2 that are answered as "
        "before do not rule out that recall of a class fell by 57 points"
    )
    assert class_warnings(np.repeat([0, 1, 2], 20), NAMES) == ()


def test_the_confusion_matrix_counts_every_sample() -> None:
    found = confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), NAMES)
    assert found.labels == NAMES
    assert found.counts == ((1, 1, 0), (0, 1, 0), (1, 0, 0))


def test_of_many_classes_the_worst_are_shown() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 100
    given = np.where((labels % 10 == 3) & (random.random(2000) < 0.7), 0, labels)
    found = confusion(labels, given, [f"c{i}" for i in range(100)], most=11)
    assert found.labels == (*(f"c{i}" for i in range(3, 100, 10)), OTHERS)
    counts = np.array(found.counts)
    assert counts.shape == (11, 11)
    assert counts.sum() == 2000
    assert counts[:10].sum() == 10 * 20
    # What was taken for class 0, which is not shown, counts as one of the others.
    assert counts[:10, 10].sum() == np.sum(given != labels)


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated() -> None:
    right = np.repeat([True, False], [80, 20])
    assert expected_calibration_error(right, np.full(100, 0.8)) == pytest.approx(0.0)
    assert expected_calibration_error(right, np.full(100, 1.0)) == pytest.approx(20.0)
    assert expected_calibration_error(right, np.full(100, 0.5)) == pytest.approx(30.0)


def test_calibration_errors_of_bins_do_not_cancel() -> None:
    right = np.array([True] * 10 + [False] * 10)
    confidence = np.array([0.7] * 10 + [0.3] * 10)
    assert expected_calibration_error(right, confidence) == pytest.approx(30.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_the_ends_of_the_scale_have_a_bin(confidence: float) -> None:
    right = np.array([confidence == 1.0] * 3)
    assert expected_calibration_error(right, np.full(3, confidence)) == pytest.approx(0.0)


def test_logits_are_read_as_the_probabilities_they_stand_for() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200).tolist()
    logits = 2.0 * one_hot(labels) + random.normal(0, 1, (200, 3))
    sharper = 3.0 * logits
    of_logits = compared(labels, logits, sharper)
    of_softmax = compared(labels, softmax(logits, axis=-1), softmax(sharper, axis=-1))
    assert of_logits.calibration_error == pytest.approx(of_softmax.calibration_error)
    assert of_logits.calibration_error[1] < of_logits.calibration_error[0]  # it was too unsure
    half = softmax(logits, axis=-1).astype(np.float16)
    np.testing.assert_array_equal(as_probabilities(half, True), half.astype(float))


def test_ids_stand_in_for_names_that_do_not_fit() -> None:
    labels = np.array([0, 1, 2])
    found = compare(
        one_hot([0, 1, 2]),
        one_hot([0, 1, 2]),
        labels,
        metric=accuracy_metric(),
        class_names=("only", "two"),
        seed=0,
    )
    assert found.confusion.labels == ("0", "1", "2")
