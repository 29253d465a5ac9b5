from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import accuracy, tiny_cnn, tiny_data, train_tiny

from lrf_core.artifacts import Check, Cost, ModelMeasures, Verdict
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, ModelError
from lrf_core.models.compare import Comparison
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.spec import GateSpec, Spec
from lrf_core.stages import checks
from lrf_core.stages.validate import validate

GATE = GateSpec(max_accuracy_drop=1.0, latency_repeats=3)


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
    assert passed.drop_interval == (0.0, 0.0)
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


def test_the_gate_of_a_whole_spec_has_a_limit() -> None:
    gate = Spec(model="m.keras", data="d.npz").effective_gate()
    assert checks.accuracy_drop(Comparison(0.5, (0.1, 0.9), 99.0), gate).passed


def test_every_limit_that_cannot_be_kept_fails_its_own_check(
    baseline: keras.Model, candidate: keras.Model, data: Data
) -> None:
    swapped = changed(candidate, "answer", lambda weight: np.roll(weight, 1, axis=-1))
    gate = GateSpec(
        max_accuracy_drop=5.0,
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


def measures(
    params: int = 100,
    macs: int = 1000,
    weight_bytes: int = 400,
    keras_ms: float | None = 2.0,
    litert_ms: float | None = 1.0,
) -> ModelMeasures:
    return ModelMeasures(
        cost=Cost(params=params, macs=macs),
        weight_bytes=weight_bytes,
        keras_latency_ms=keras_ms,
        litert_latency_ms=litert_ms,
    )


@pytest.mark.parametrize(
    ("limit", "after", "name", "passes"),
    [
        ({}, measures(params=99), "fewer_parameters", True),
        ({}, measures(params=100), "fewer_parameters", False),
        ({"min_params_reduction": 0.4}, measures(params=60), "params_reduction", True),
        ({"min_params_reduction": 0.4}, measures(params=61), "params_reduction", False),
        ({"min_macs_reduction": 0.3}, measures(macs=700), "macs_reduction", True),
        ({"min_macs_reduction": 0.3}, measures(macs=701), "macs_reduction", False),
        ({"max_weight_bytes": 200}, measures(weight_bytes=200), "weight_bytes", True),
        ({"max_weight_bytes": 200}, measures(weight_bytes=201), "weight_bytes", False),
        ({"max_keras_latency_ratio": 0.5}, measures(keras_ms=1.0), "keras_latency_ratio", True),
        ({"max_keras_latency_ratio": 0.5}, measures(keras_ms=1.1), "keras_latency_ratio", False),
        ({"max_litert_latency_ratio": 1.0}, measures(litert_ms=1.0), "litert_latency_ratio", True),
        ({"max_litert_latency_ratio": 1.0}, measures(litert_ms=1.1), "litert_latency_ratio", False),
        (
            {"max_litert_latency_ratio": 9.0},
            measures(litert_ms=None),
            "litert_latency_ratio",
            False,
        ),
    ],
)
def test_each_limit_is_kept_up_to_its_value(
    limit: dict[str, float], after: ModelMeasures, name: str, passes: bool
) -> None:
    gate = GateSpec(**limit)  # type: ignore[arg-type]
    found = [*checks.size_checks(measures(), after, gate)]
    found += checks.latency_checks(measures(), after, gate, "LiteRT cannot")
    (check,) = [check for check in found if check.name == name]
    assert check.passed is passes


@pytest.mark.parametrize(("drop", "passes"), [(1.0, True), (0.7 + 0.1 + 0.2, True), (1.01, False)])
def test_a_drop_of_exactly_the_limit_passes(drop: float, passes: bool) -> None:
    check = checks.accuracy_drop(Comparison(drop, (0.0, 2.0), 98.0), GATE)
    assert check.passed is passes


def test_an_export_that_answers_otherwise_fails() -> None:
    judged = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert checks.litert_same_answers(judged, judged + 1e-4, "").passed
    off = judged.copy()
    off[0, 1] += 0.1
    assert not checks.litert_same_answers(judged, off, "").passed
    assert not checks.litert_same_answers(judged, judged[:, ::-1], "").passed
    assert not checks.litert_same_answers(judged, judged * np.nan, "").passed
    assert not checks.litert_same_answers(judged, None, "no export").passed


def test_a_near_tie_may_go_to_the_other_class() -> None:
    judged = np.array([[1.0, 1.0 - 1e-5]])
    assert checks.litert_same_answers(judged, judged[:, ::-1], "").passed


def test_a_clear_lead_may_not_go_to_the_other_class() -> None:
    judged = np.array([[1.0, 1.0 - 1.5e-3]])
    exported = judged + np.array([[-0.9e-3, 0.9e-3]])  # each answer alone is close enough
    assert not checks.litert_same_answers(judged, exported, "").passed


def test_a_model_that_changes_when_saved_fails() -> None:
    assert checks.digest_unchanged("a" * 64, "a" * 64, "").passed
    assert not checks.digest_unchanged("a" * 64, "b" * 64, "").passed
    assert not checks.digest_unchanged("a" * 64, None, "cannot be saved").passed
