"""The questions of the gate, on measures and comparisons made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lrf_core.artifacts import Check, ClassChange, Confusion, Cost, ModelMeasures
from lrf_core.gate import checks
from lrf_core.gate.comparison import Comparison, MeasuredMetric
from lrf_core.gate.interval import score_interval
from lrf_core.gate.metric import Metric, accuracy_metric
from lrf_core.gate.paired import Paired, paired_counts
from lrf_core.spec import GateSpec, Spec

GATE = GateSpec(max_accuracy_drop=1.0, latency_repeats=3)


def of_accuracy(lost: int, won: int, count: int, k: int = 1) -> MeasuredMetric:
    before = 0.9
    after = before - (lost - won) / count
    return MeasuredMetric(
        accuracy_metric(k), paired_counts(before, after, lost=lost, won=won, count=count)
    )


def of_loss(rise: float, half_width: float) -> MeasuredMetric:
    """A loss with an interval of the same width at every level."""
    metric = Metric("my_loss", False, False, False, lambda labels, answers: np.zeros(len(labels)))
    return MeasuredMetric(
        metric,
        Paired(
            1.0, 1.0 + rise, rise, 100, "by hand", lambda _: (rise - half_width, rise + half_width)
        ),
    )


def comparison(measured: MeasuredMetric, accuracy: MeasuredMetric | None = None) -> Comparison:
    worst = ClassChange(
        label="cat", samples=20, before=90.0, after=75.0, drop=15.0, interval=(-2.0, 36.0)
    )
    return Comparison(
        accuracy=accuracy or measured,
        metric=measured,
        classes=(worst, worst.model_copy(update={"label": "dog", "drop": 0.0})),
        agreement=98.0,
        calibration_error=(2.0, 3.5),
        confusion=Confusion(labels=("cat", "dog"), counts=((1, 0), (0, 1))),
    )


def dropped(measured: MeasuredMetric, gate: GateSpec = GATE, candidates: int = 1) -> Check:
    (check,) = checks.drop_checks(comparison(measured), gate, candidates)
    return check


@pytest.mark.parametrize(
    ("lost", "won", "passes"), [(10, 0, True), (11, 1, True), (11, 0, False), (0, 11, True)]
)
def test_a_drop_of_exactly_the_limit_passes(lost: int, won: int, passes: bool) -> None:
    assert dropped(of_accuracy(lost, won, 1000)).passed is passes


def test_the_gate_of_a_whole_spec_has_a_limit() -> None:
    gate = Spec(model="m.keras", data="d.npz").effective_gate()
    assert dropped(of_accuracy(5, 0, 1000), gate).passed
    assert not dropped(of_accuracy(11, 0, 1000), gate).passed


def test_confidence_asks_for_more_than_the_drop() -> None:
    sure = GATE.model_copy(update={"confidence": 0.95})
    assert dropped(of_accuracy(4, 2, 1000)).passed
    check = dropped(of_accuracy(4, 2, 1000), sure)
    assert check.passed
    assert "at most 0.71 with 95% confidence" in check.note
    check = dropped(of_accuracy(9, 2, 1000), sure)
    assert not check.passed
    assert "too few samples to be that sure: 1,000, about " in check.note


def test_the_samples_said_to_be_needed_are_enough_and_one_less_is_not() -> None:
    sure = GATE.model_copy(update={"confidence": 0.95})
    measured = of_accuracy(9, 2, 1000)
    needed = measured.paired.samples_needed(0.01, 0.95)
    assert needed is not None
    assert f"about {needed:,} needed" in dropped(measured, sure).note
    for count, passes in ((needed, True), (needed - 1, False)):
        bound = score_interval(0.009 * count, 0.002 * count, count, 0.9)[1]
        assert (bound <= 0.01) is passes


def test_nothing_lost_still_needs_samples() -> None:
    """One-sided 95% of no change is z^2 / (n + z^2), z = 1.645: below 0.1 points from 2,703 on."""
    measured = of_accuracy(0, 0, 100)
    assert measured.paired.samples_needed(0.001, 0.95) == 2703
    strict = GateSpec(max_accuracy_drop=0.1, confidence=0.95)
    assert "about 2,703 needed" in dropped(measured, strict).note


@pytest.mark.parametrize(("lost", "won", "limit"), [(20, 0, 1.0), (5, 5, 0.0)])
def test_no_number_is_promised_where_none_would_do(lost: int, won: int, limit: float) -> None:
    measured = of_accuracy(lost, won, 1000)
    assert measured.paired.samples_needed(limit / 100.0, 0.95) is None
    check = dropped(measured, GateSpec(max_accuracy_drop=limit, confidence=0.95))
    assert not check.passed
    assert "needed" not in check.note


def test_confidence_is_divided_among_candidates() -> None:
    sure = GATE.model_copy(update={"confidence": 0.95})
    alone, among = (dropped(of_accuracy(6, 3, 1000), sure, count) for count in (1, 5))
    assert alone.passed
    assert not among.passed
    assert "with 99% confidence (95% over 5 candidates, Bonferroni)" in among.note
    assert dropped(of_accuracy(6, 3, 1000), GATE, 5) == dropped(of_accuracy(6, 3, 1000))


def test_another_accuracy_is_named() -> None:
    gate = GateSpec(metric="top_5", max_accuracy_drop=1.0)
    check = dropped(of_accuracy(5, 0, 1000, k=5), gate)
    assert check.name == "accuracy_drop"
    assert "of top-5 accuracy" in check.note


def test_another_metric_has_its_own_limit_and_unit() -> None:
    gate = GateSpec(metric="my:loss", metric_direction="lower", max_metric_drop=0.05)
    check = dropped(of_loss(0.04, 0.03), gate)
    assert (check.name, check.limit, check.measured) == ("metric_drop", "<= 0.05", "0.04")
    assert check.passed
    assert not dropped(of_loss(0.06, 0.03), gate).passed
    sure = gate.model_copy(update={"confidence": 0.95})
    check = dropped(of_loss(0.04, 0.03), sure)
    assert not check.passed
    # The width must shrink from 0.03 to 0.01: nine times the samples.
    assert "about 900 needed" in check.note


def test_another_metric_without_a_limit_does_not_pass_and_accuracy_is_judged_if_asked() -> None:
    gate = GateSpec(metric="my:loss", metric_direction="lower")
    check = dropped(of_loss(0.0, 0.0), gate)
    assert not check.passed
    assert check.note == "nobody set max_metric_drop; without it nothing passes"
    both = gate.model_copy(update={"max_metric_drop": 1.0, "max_accuracy_drop": 1.0})
    found = list(checks.drop_checks(comparison(of_loss(0.5, 0.1), of_accuracy(20, 0, 1000)), both))
    assert [(check.name, check.passed) for check in found] == [
        ("metric_drop", True),
        ("accuracy_drop", False),
    ]


@pytest.mark.parametrize(
    ("limit", "name", "passes"),
    [
        ({"max_worst_class_drop": 15.0}, "worst_class_drop", True),
        ({"max_worst_class_drop": 14.9}, "worst_class_drop", False),
        ({"min_agreement": 98.0}, "agreement", True),
        ({"min_agreement": 98.1}, "agreement", False),
        ({"max_ece_drift": 1.5}, "ece_drift", True),
        ({"max_ece_drift": 1.4}, "ece_drift", False),
    ],
)
def test_limits_of_the_answers(limit: dict[str, Any], name: str, passes: bool) -> None:
    gate = GateSpec(**limit)
    (check,) = checks.answer_checks(comparison(of_accuracy(1, 0, 100)), gate)
    assert (check.name, check.passed) == (name, passes)
    (unmeasured,) = checks.answer_checks(None, gate)
    assert (unmeasured.measured, unmeasured.passed) == (None, False)


def test_the_worst_class_is_named() -> None:
    gate = GateSpec(max_worst_class_drop=1.0)
    (check,) = checks.answer_checks(comparison(of_accuracy(1, 0, 100)), gate)
    assert check.note == "class cat, 20 samples; 95% interval -2.00 to 36.00"


@pytest.mark.parametrize("gate", [GATE, GateSpec(metric="auc", max_metric_drop=0.1), GateSpec()])
def test_what_cannot_be_compared_fails(gate: GateSpec) -> None:
    (check,) = checks.drop_checks(None, gate)
    assert (check.measured, check.passed) == (None, False)


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
