"""What the drop can be of: accuracies, Keras metrics, functions of the user's; and which fail."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from lrf_core.errors import DataError, LrfError, SpecError
from lrf_core.gate.comparison import compare
from lrf_core.gate.metric import is_among_largest, metric_of
from lrf_core.spec import GateSpec, make_spec

COUNT, CLASSES = 400, 6


@pytest.fixture(autouse=True)
def in_the_folder_of_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CLASSES, COUNT)


@pytest.fixture(scope="module")
def before(labels: np.ndarray) -> np.ndarray:
    """Logits `(COUNT, CLASSES)` that favour the label."""
    return 3.0 * np.eye(CLASSES)[labels] + np.random.default_rng(1).normal(0, 1, (COUNT, CLASSES))


@pytest.fixture(scope="module")
def after(before: np.ndarray) -> np.ndarray:
    return before + np.random.default_rng(2).normal(0, 1.5, before.shape)


def compared(labels, before, after, **gate):  # type: ignore[no-untyped-def]
    metric = metric_of(GateSpec(**gate), CLASSES)
    return compare(before, after, labels, metric=metric, class_names=(), seed=0)


@given(st.integers(1, 5), st.integers(0, 10**6))
def test_top_k_is_the_label_among_the_k_first_of_argsort(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    answers = random.integers(0, 4, (30, 6)).astype(float)  # many ties
    labels = random.integers(0, 6, 30)
    first = np.argsort(-answers, axis=-1, kind="stable")[:, :k]
    np.testing.assert_array_equal(
        is_among_largest(labels, answers, k), (first == labels[:, None]).any(axis=-1)
    )
    np.testing.assert_array_equal(
        is_among_largest(labels, answers, 1), answers.argmax(axis=-1) == labels
    )


def test_answers_that_are_no_numbers_are_wrong() -> None:
    answers = np.array([[np.nan, 1.0, 0.0], [0.0, 1.0, 0.5]])
    assert is_among_largest(np.array([1, 1]), answers, 2).tolist() == [False, True]


@pytest.mark.parametrize("name", ["top_5", "top5"])
def test_top_5_drops_in_points(
    name: str, labels: np.ndarray, before: np.ndarray, after: np.ndarray
) -> None:
    found = compared(labels, before, after, metric=name)
    change = found.metric.change(seed=0, confidence=0.95)
    expected = [
        100.0 * keras.metrics.SparseTopKCategoricalAccuracy(k=5)(labels, answers.astype(np.float32))
        for answers in (before, after)
    ]
    assert (change.before, change.after) == pytest.approx(tuple(map(float, expected)), rel=1e-6)
    assert (change.name, change.unit, change.method) == ("top-5 accuracy", "points", "Tango score")
    assert change.drop == pytest.approx(change.before - change.after)
    assert change.lost is not None
    assert found.accuracy.metric.name == "accuracy"
    assert [measured.metric.name for measured in found.metrics()] == ["accuracy", "top-5 accuracy"]


@pytest.mark.parametrize(
    ("name", "is_better_higher", "method"),
    [
        ("sparse_categorical_crossentropy", False, "studentized bootstrap"),
        ("categorical_crossentropy", False, "studentized bootstrap"),
        ("mse", False, "studentized bootstrap"),
        ("sparse_categorical_accuracy", True, "Tango score"),
        ("auc", True, "BCa bootstrap"),
    ],
)
def test_metrics_of_keras_have_the_value_that_keras_gives(
    name: str,
    is_better_higher: bool,
    method: str,
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # BCa evaluates Keras for every draw; fewer of them say the same here.
    monkeypatch.setattr("lrf_core.gate.interval.DRAWS", 400)
    change = compared(labels, before, after, metric=name).metric.change(seed=0, confidence=0.95)
    wanted = labels if name.startswith("sparse") else np.eye(CLASSES)[labels]
    for value, answers in ((change.before, before), (change.after, after)):
        metric = keras.metrics.get(name)
        metric.update_state(wanted, softmax(answers, axis=-1))
        assert value == pytest.approx(float(metric.result()), rel=1e-4)
    sign = 1.0 if is_better_higher else -1.0
    assert change.higher_is_better is is_better_higher
    assert change.drop == pytest.approx(sign * (change.before - change.after), rel=1e-6)
    assert change.drop > 0.0
    assert change.interval[0] < change.drop < change.interval[1]
    assert (change.unit, change.method) == ("", method)


@pytest.mark.parametrize(
    ("function", "method"),
    [
        ("share_right", "Tango score"),
        ("mean_margin", "studentized bootstrap"),
        ("macro_recall", "BCa bootstrap"),
    ],
)
def test_functions_of_the_user_get_labels_and_answers(
    function: str, method: str, labels: np.ndarray, before: np.ndarray, after: np.ndarray
) -> None:
    change = compared(
        labels, before, after, metric=f"named_metrics:{function}", metric_direction="higher"
    ).metric.change(seed=0, confidence=0.95)
    import named_metrics

    expected = np.mean(getattr(named_metrics, function)(labels, before))
    assert change.before == pytest.approx(expected)
    assert change.method == method
    assert change.drop > 0.0
    worse = compared(
        labels, before, after, metric=f"named_metrics:{function}", metric_direction="lower"
    ).metric.change(seed=0, confidence=0.95)
    assert worse.drop == pytest.approx(-change.drop)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"metric": "top_6"}, "always right among its first 6; give a k below 6"),
        ({"metric": "f1_scor"}, "Keras has no metric that this name alone makes"),
        ({"metric": "mean_io_u"}, "Keras has no metric that this name alone makes"),
        ({"metric": "named_metrics:share_right"}, "set gate.metric_direction"),
        ({"metric": "mean"}, "set gate.metric_direction"),
        ({"metric": "nowhere:f", "metric_direction": "higher"}, "no module 'nowhere'"),
        ({"metric": "named_metrics:g", "metric_direction": "higher"}, "has no function 'g'"),
        (
            {"metric": "named_metrics:three_numbers", "metric_direction": "higher"},
            "gives (3,) values for 400 samples",
        ),
        ({"metric": "f1_score"}, "gives (6,) values for 400 samples"),
        ({"metric": "named_metrics:fails", "metric_direction": "lower"}, "failed: KeyError"),
        ({"metric": "named_metrics:not_finite", "metric_direction": "lower"}, "more samples"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(
    gate: dict[str, str],
    message: str,
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
) -> None:
    with pytest.raises((SpecError, DataError)) as caught:
        compared(labels, before, after, **gate)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, LrfError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"metric": "top_0"}, None),
        ({"metric": "no such"}, "gate.metric"),
        ({"max_metric_drop": 0.1}, "the limit of accuracy is max_accuracy_drop"),
        ({"metric": "top_3", "metric_direction": "lower"}, "top_3 is better when higher"),
        ({"confidence": 1.0}, "less than 1"),
        ({"confidence": 0.4}, "greater than or equal to 0.5"),
        ({"min_agreement": 101}, "less than or equal to 100"),
    ],
)
def test_the_spec_refuses_what_makes_no_sense(gate: dict[str, object], message: str | None) -> None:
    settings = {"model": "m.keras", "data": "d.npz", "gate": gate}
    if message is None:  # a name that only Keras can refuse
        with pytest.raises(SpecError, match="Keras has no metric"):
            metric_of(make_spec(settings).gate, CLASSES)
        return
    with pytest.raises(SpecError) as caught:
        make_spec(settings)
    assert message in str(caught.value)


def test_a_point_of_accuracy_is_no_default_for_another_metric() -> None:
    base = {"model": "m.keras", "data": "d.npz", "gate": {"metric": "auc"}}
    assert make_spec(base).effective_gate().max_accuracy_drop is None
    asked = make_spec({**base, "goal": {"max_accuracy_drop": 2.0}})
    assert asked.effective_gate().max_accuracy_drop == 2.0
    top_5 = make_spec({**base, "gate": {"metric": "top_5"}})
    assert top_5.effective_gate().max_accuracy_drop == 1.0
