from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import accuracy, tiny_cnn, tiny_data, train_tiny

from lrf_core.artifacts import Check, Cost, Verdict
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, ModelError, SpecError
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.spec import GateSpec
from lrf_core.stages.validate import smallest_passing, validate, validate_all

# As measured: 128 samples cannot bound a drop of 1 point, and most tests are about something else.
GATE = GateSpec(max_accuracy_drop=1.0, confidence=None, latency_repeats=3)


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny_data(train=256, test=128)


@pytest.fixture(scope="module")
def candidate(data: Data) -> keras.Model:
    return train_tiny(tiny_cnn(residual=False, logits=True), data, epochs=6)


@pytest.fixture(scope="module")
def baseline(candidate: keras.Model) -> keras.Model:
    """The candidate, and two layers more whose product is the identity: the same answers."""
    wide = keras.layers.Dense(32, use_bias=False, name="wide")
    narrow = keras.layers.Dense(4, use_bias=False, name="narrow")
    model = keras.Model(candidate.input, narrow(wide(candidate.outputs[0])), name="baseline")
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 4)))[0].T
    wide.set_weights([rows])
    narrow.set_weights([rows.T])
    return model


@pytest.fixture(scope="module")
def passed(baseline: keras.Model, candidate: keras.Model, data: Data) -> Verdict:
    return validate(baseline, candidate, data, gate=GATE)


def changed(model: keras.Model, answer: str, change) -> keras.Model:  # type: ignore[no-untyped-def]
    """A copy of the model with the weights of one layer changed."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    layer = copy.get_layer(answer)
    layer.set_weights([change(weight) for weight in layer.get_weights()])
    return copy


def check_of(verdict: Verdict, name: str) -> Check:
    (found,) = [check for check in verdict.checks if check.name == name]
    return found


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if not check.passed}


def test_a_smaller_model_with_the_same_answers_passes(
    passed: Verdict, baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    assert failed(passed) == set()
    assert passed.passed
    assert passed.accuracy_drop == pytest.approx(0.0)
    assert passed.agreement == pytest.approx(100.0)
    # Nothing lost or won among 128: the interval is still as wide as z^2 / (n + z^2).
    assert passed.drop_interval == pytest.approx((-2.914, 2.914), abs=1e-3)
    assert passed.baseline.accuracy == pytest.approx(accuracy(baseline, data.test))
    assert passed.candidate.cost.params == candidate.count_params()
    assert passed.candidate.litert_latency_ms is not None
    assert passed.lineage.inputs == {
        "baseline": model_digest(baseline),
        "candidate": model_digest(candidate),
        "data": data.digest,
    }


def test_only_limits_that_are_set_are_judged(passed: Verdict) -> None:
    assert {check.name for check in passed.checks} == {
        "same_output_shape",
        "finite_outputs",
        "accuracy_drop",
        "collapsed_classes",
        "fewer_parameters",
        "litert_same_answers",
        "digest_unchanged",
    }


def test_the_digest_judged_is_that_of_the_model_read_back(
    passed: Verdict, candidate: keras.Model, tmp_path: Path
) -> None:
    assert passed.candidate_digest == model_digest(load_model(save_model(candidate, tmp_path)))


def test_a_verdict_survives_its_file(passed: Verdict, tmp_path: Path) -> None:
    passed.save(tmp_path)
    assert Verdict.load(tmp_path) == passed


def test_nothing_passes_when_nobody_set_a_limit(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    verdict = validate(baseline, candidate, data, gate=GateSpec(latency_repeats=3))
    assert not verdict.passed
    assert failed(verdict) == {"accuracy_drop"}
    assert check_of(verdict, "accuracy_drop").limit == "no limit set"


def test_every_limit_that_cannot_be_kept_fails_its_own_check(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    swapped = changed(candidate, "answer", lambda weight: np.roll(weight, 1, axis=-1))
    gate = GateSpec(
        max_accuracy_drop=5.0,
        confidence=None,
        min_params_reduction=0.99,
        min_macs_reduction=0.99,
        max_weight_bytes=10,
        max_keras_latency_ratio=1e-6,
        max_litert_latency_ratio=1e-6,
        latency_repeats=3,
    )
    verdict = validate(baseline, swapped, data, gate=gate)
    assert failed(verdict) == {
        "accuracy_drop",
        "params_reduction",
        "macs_reduction",
        "weight_bytes",
        "keras_latency_ratio",
        "litert_latency_ratio",
    }
    assert verdict.accuracy_drop is not None
    assert verdict.drop_interval is not None
    assert verdict.accuracy_drop > 50.0
    assert verdict.drop_interval[0] < verdict.accuracy_drop < verdict.drop_interval[1]


def test_too_few_samples_to_bound_the_drop_fail_by_default(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    gate = GateSpec(max_accuracy_drop=1.0, latency_repeats=3)
    for most in (None, 5):
        few = gate.model_copy(update={"max_samples": most})
        verdict = validate(baseline, candidate, data, gate=few)
        assert failed(verdict) == {"accuracy_drop"}
        note = check_of(verdict, "accuracy_drop").note
        assert "too few samples to be that sure" in note
        assert "about 268 needed" in note
    # Of 5 samples or so, no class has enough of them to say anything.
    assert any("fewer than 20 test samples" in warning for warning in verdict.warnings)
    assert validate(baseline, candidate, data, gate=GATE).passed
    at_3_points = gate.model_copy(update={"max_accuracy_drop": 3.0})
    assert validate(baseline, candidate, data, gate=at_3_points).passed


def test_a_candidate_that_never_answers_a_class_fails_whatever_the_drop(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    copy = keras.models.clone_model(candidate)
    copy.set_weights(candidate.get_weights())
    kernel, bias = copy.get_layer("answer").get_weights()
    bias[2] = -1e3
    copy.get_layer("answer").set_weights([kernel, bias])
    gate = GateSpec(max_accuracy_drop=100.0, latency_repeats=3)
    verdict = validate(baseline, copy, data, gate=gate)
    assert failed(verdict) == {"collapsed_classes"}
    assert "never answers class2" in check_of(verdict, "collapsed_classes").note
    allowed = gate.model_copy(update={"max_collapsed_classes": 1})
    assert validate(baseline, copy, data, gate=allowed).passed


def test_a_model_that_is_not_smaller_fails(baseline: keras.Model, data: Data) -> None:
    verdict = validate(baseline, baseline, data, gate=GATE)
    assert failed(verdict) == {"fewer_parameters"}


def test_a_model_that_answers_nan_gets_a_verdict(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    broken = changed(candidate, "answer", lambda weight: np.full_like(weight, np.nan))
    verdict = validate(baseline, broken, data, gate=GATE)
    assert not verdict.passed
    assert check_of(verdict, "finite_outputs").measured == "128 of 128"
    assert {"finite_outputs", "accuracy_drop", "litert_same_answers"} <= failed(verdict)
    assert check_of(verdict, "accuracy_drop").measured is None
    assert verdict.accuracy_drop is verdict.drop_interval is verdict.agreement is None
    assert verdict.candidate.accuracy is None
    assert verdict.baseline.accuracy is not None


def test_a_model_that_answers_in_another_shape_gets_a_verdict(
    baseline: keras.Model, data: Data
) -> None:
    other = tiny_cnn(classes=5, filters=(2, 2), residual=False)
    verdict = validate(baseline, other, data, gate=GATE)
    assert {"same_output_shape", "finite_outputs", "accuracy_drop"} <= failed(verdict)
    assert verdict.accuracy_drop is None


def test_a_model_that_litert_cannot_express_is_not_measured_and_fails(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    answers = candidate.outputs[0]
    odd = keras.Model(candidate.input, answers + keras.ops.erfinv(0.0 * answers))
    gate = GATE.model_copy(update={"max_litert_latency_ratio": 10.0})
    verdict = validate(baseline, odd, data, gate=gate)
    assert failed(verdict) == {"litert_same_answers", "litert_latency_ratio"}
    assert check_of(verdict, "litert_same_answers").measured is None
    assert "Erfinv" in check_of(verdict, "litert_same_answers").note
    assert verdict.candidate.litert_latency_ms is None
    assert verdict.baseline.litert_latency_ms is not None


def test_the_samples_judged_depend_on_the_seed_alone(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    weaker = changed(candidate, "answer", lambda weight: weight + 0.3 * np.arange(4))
    gate = GATE.model_copy(update={"max_samples": 40})

    def judged(seed: int) -> tuple[object, ...]:
        verdict = validate(baseline, weaker, data, gate=gate, seed=seed)
        assert verdict.candidate.samples == 40
        return (
            verdict.accuracy_drop,
            verdict.drop_interval,
            verdict.baseline.accuracy,
            (verdict.agreement),
        )

    assert judged(1) == judged(1)
    assert judged(1) != judged(2)


def test_a_baseline_no_better_than_guessing_is_refused(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    samples, labels = data.test.arrays()
    assert labels is not None
    other_order = dataclasses.replace(data, test=Split.of(samples, (labels + 1) % 4))
    with pytest.raises(DataError, match=r"no better than guessing among 4 classes \(25.0%\)"):
        validate(baseline, candidate, other_order, gate=GATE)


def test_a_baseline_that_answers_nan_is_refused(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    broken = changed(baseline, "narrow", lambda weight: np.full_like(weight, np.nan))
    with pytest.raises(DataError, match="the baseline answers NaN"):
        validate(broken, candidate, data, gate=GATE)


def test_samples_without_labels_are_refused(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    unlabelled = dataclasses.replace(data, test=Split.of(data.test.arrays()[0]))
    with pytest.raises(DataError, match="no labels"):
        validate(baseline, candidate, unlabelled, gate=GATE)


def test_a_candidate_for_other_samples_is_refused(baseline: keras.Model, data: Data) -> None:
    with pytest.raises(ModelError, match="takes samples of shape"):
        validate(baseline, tiny_cnn((8, 8, 3)), data, gate=GATE)


def with_test(data: Data, samples: np.ndarray, labels: np.ndarray | None) -> Data:
    return dataclasses.replace(data, test=Split(len(samples), labels, lambda i: samples[i]))


def test_labels_may_be_one_hot_or_a_column(
    passed: Verdict, baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    samples, labels = data.test.arrays()
    assert labels is not None
    for other in (np.eye(4)[labels], labels[:, None]):
        verdict = validate(baseline, candidate, with_test(data, samples, other), gate=GATE)
        assert verdict.passed
        assert verdict.metrics == passed.metrics
        assert verdict.classes == passed.classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), "there are no test samples to judge on"),
        (lambda x, y: (x, y[:-1]), "128 test samples but 127 labels"),
        (lambda x, y: (x[y == 2], y[y == 2]), "all 32 test samples are of class 2"),
        (lambda x, y: (x, y + 1), "class ids 1 to 4, but the model has 4 outputs"),
        (lambda x, y: (x, y - 1), "class ids -1 to 2"),
        (lambda x, y: (x, np.eye(5)[y]), "one-hot for 5 classes, but the model has 4 outputs"),
        (lambda x, y: (x, np.eye(4)[y] * 0.5), "is not one-hot"),
        (lambda x, y: (x, y + 0.5), "fractions or NaN"),
    ],
)
def test_samples_that_prove_nothing_are_one_clear_line(  # type: ignore[no-untyped-def]
    change, message: str, baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    samples, labels = data.test.arrays()
    with pytest.raises(DataError) as caught:
        validate(baseline, candidate, with_test(data, *change(samples, labels)), gate=GATE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_draw_of_one_class_is_refused(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    gate = GATE.model_copy(update={"max_samples": 1})
    with pytest.raises(DataError, match="all 1 test samples are of class"):
        validate(baseline, candidate, data, gate=gate)


def test_a_metric_that_is_none_is_said_before_the_work(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    with pytest.raises(SpecError, match="give a k below 4"):
        validate(baseline, candidate, data, gate=GateSpec(metric="top_4"))


def test_everything_is_measured_whatever_is_limited(passed: Verdict, data: Data) -> None:
    (accuracy,) = passed.metrics
    assert (accuracy.before, accuracy.after) == (passed.baseline.accuracy,) * 2
    assert (accuracy.lost, accuracy.won, accuracy.mcnemar_p) == (0, 0, 1.0)
    assert accuracy.bootstrap_interval == (0.0, 0.0)
    assert [change.samples for change in passed.classes] == [32] * 4
    assert {change.label for change in passed.classes} == set(data.class_names)
    assert passed.calibration_error is not None
    assert passed.calibration_error[0] == pytest.approx(passed.calibration_error[1], abs=1e-3)
    assert passed.confusion is not None
    assert np.sum(passed.confusion.counts) == 128
    assert passed.warnings == ()
    for measures in (passed.baseline, passed.candidate):
        for kind in ("keras", "litert"):
            median = getattr(measures, f"{kind}_latency_ms")
            assert 0 < median <= getattr(measures, f"{kind}_latency_p95_ms")


def test_every_limit_of_the_answers_is_judged(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    swapped = changed(candidate, "answer", lambda weight: np.roll(weight, 1, axis=-1))
    limits = {"max_worst_class_drop": 0.0, "min_agreement": 99.0, "max_ece_drift": 0.0}
    gate = GateSpec(
        metric="sparse_categorical_crossentropy",
        max_metric_drop=0.01,
        max_accuracy_drop=1.0,
        latency_repeats=3,
        **limits,  # type: ignore[arg-type]
    )
    verdict = validate(baseline, swapped, data, gate=gate)
    assert failed(verdict) == {
        "metric_drop",
        "accuracy_drop",
        "worst_class_drop",
        "agreement",
        "ece_drift",
    }
    assert [change.name for change in verdict.metrics] == [
        "accuracy",
        "sparse_categorical_crossentropy",
    ]


def test_test_samples_that_were_trained_on_are_a_warning_and_no_fail(
    baseline: keras.Model, candidate: keras.Model, data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    samples, labels = data.test.arrays()
    leaked = samples.copy()
    leaked[[5, 6, 7]] = data.train.read(np.array([100, 3, 50]))
    verdict = validate(baseline, candidate, with_test(data, leaked, labels), gate=GATE)
    assert verdict.passed
    (warning,) = verdict.warnings
    assert warning.startswith("3 of 128 test samples (2.3%) are among the training samples")
    assert warning in caplog.text


def test_a_class_without_samples_is_a_warning(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    samples, labels = data.test.arrays()
    assert labels is not None
    few = with_test(data, samples[labels != 2], labels[labels != 2])
    verdict = validate(baseline, candidate, few, gate=GATE)
    (warning,) = verdict.warnings
    assert warning.startswith("1 of 4 classes have no test samples (class2)")


def test_several_candidates_are_judged_as_each_alone(
    passed: Verdict, baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    swapped = changed(candidate, "answer", lambda weight: np.roll(weight, 1, axis=-1))
    nan = changed(candidate, "answer", lambda weight: np.full_like(weight, np.nan))
    other = tiny_cnn(classes=5, filters=(2, 2), residual=False)
    verdicts = validate_all(baseline, (swapped, candidate, nan, other), data, gate=GATE)
    assert [verdict.passed for verdict in verdicts] == [False, True, False, False]
    assert smallest_passing(verdicts) == 1
    assert len({verdict.baseline for verdict in verdicts}) == 1
    assert verdicts[1].metrics == passed.metrics
    assert verdicts[1].candidate_digest == passed.candidate_digest
    assert verdicts[0].accuracy_drop is not None
    assert verdicts[0].accuracy_drop > 50.0
    assert "finite_outputs" in failed(verdicts[2])
    assert "same_output_shape" in failed(verdicts[3])
    assert verdicts[1].lineage.settings["candidates"] == 4


def test_confidence_is_shared_by_the_candidates_and_said_so(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    gate = GATE.model_copy(update={"confidence": 0.9, "max_accuracy_drop": 2.0})
    # Nothing lost of 128: at most z^2 / (128 + z^2), 1.27 points at 90% and 2.07 at 95%.
    assert validate(baseline, candidate, data, gate=gate).passed
    verdicts = validate_all(baseline, (candidate, candidate), data, gate=gate)
    assert not any(verdict.passed for verdict in verdicts)
    note = check_of(verdicts[0], "accuracy_drop").note
    assert "at most 2.07 with 95% confidence (90% over 2 candidates, Bonferroni)" in note
    assert "about 133 needed" in note


def test_no_candidate_is_no_verdict(baseline: keras.Model, data: Data) -> None:
    with pytest.raises(ModelError, match="no candidate"):
        validate_all(baseline, (), data, gate=GATE)


def test_the_smallest_that_passed_wins(passed: Verdict) -> None:
    def sized(params: int, macs: int, size: int, passes: bool = True) -> Verdict:
        measures = passed.candidate.model_copy(
            update={"cost": Cost(params=params, macs=macs), "weight_bytes": size}
        )
        return passed.model_copy(update={"candidate": measures, "passed": passes})

    assert smallest_passing([sized(9, 1, 1), sized(5, 9, 9), sized(3, 1, 1, False)]) == 1
    assert smallest_passing([sized(5, 8, 1), sized(5, 7, 9), sized(5, 7, 8)]) == 2
    assert smallest_passing([sized(5, 7, 8), sized(5, 7, 8)]) == 0
    assert smallest_passing([sized(5, 7, 8, False)]) is None
    assert smallest_passing([]) is None
