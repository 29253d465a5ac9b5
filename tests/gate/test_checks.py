"""The checks of the gate, on measures and comparisons made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sound_verdict import sound_verdict

from lrf_core.artifacts import Check, ClassChange, Cost, MetricChange, ModelMeasures, Verdict
from lrf_core.gate import checks
from lrf_core.gate.comparison import change_of, each_confidence
from lrf_core.gate.interval import score_interval
from lrf_core.gate.metric import metric_title
from lrf_core.gate.paired import Paired, paired_counts
from lrf_core.gate.served import compared_answers
from lrf_core.spec import GateSpec, Spec

GATE = GateSpec(max_accuracy_drop=1.0, latency_repeats=3)
AS_MEASURED = GATE.model_copy(update={"confidence": None})


def of_accuracy(
    lost: int, won: int, count: int, k: int = 1, confidence: float | None = 0.95
) -> MetricChange:
    before = 0.9
    after = before - (lost - won) / count
    return change_of(
        paired_counts(before, after, lost=lost, won=won, count=count),
        metric_title(f"top_{k}"),
        is_accuracy=True,
        higher_is_better=True,
        seed=0,
        confidence=confidence,
    )


def of_loss(rise: float, half_width: float) -> MetricChange:
    """A loss with an interval of the same width at every level."""
    limits = rise - half_width, rise + half_width
    return change_of(
        Paired(1.0, 1.0 + rise, rise, 100, "by hand", lambda _: limits),
        "my:loss",
        is_accuracy=False,
        higher_is_better=False,
        seed=0,
        confidence=0.95,
    )


def dropped(
    change: MetricChange, gate: GateSpec = GATE, samples: int = 1000, candidates: int = 1
) -> Check:
    (check,) = checks.drop_checks((change,), gate, samples, candidates)
    return check


def measured(**changes: Any) -> Verdict:
    worst = ClassChange(
        label="cat",
        samples=20,
        before=90.0,
        after=75.0,
        drop=15.0,
        interval=(-2.0, 36.0),
        answered_before=20,
        answered_after=10,
    )
    classes = (worst.model_copy(update={"label": "dog", "drop": 0.0}), worst)
    numbers = {"classes": classes, "agreement": 98.0, "calibration_error": (2.0, 3.5)}
    return sound_verdict().model_copy(update={**numbers, **changes})


@pytest.mark.parametrize(
    ("lost", "won", "passes"), [(10, 0, True), (11, 1, True), (11, 0, False), (0, 11, True)]
)
def test_as_measured_a_drop_of_exactly_the_limit_passes(lost: int, won: int, passes: bool) -> None:
    check = dropped(of_accuracy(lost, won, 1000), AS_MEASURED)
    assert check.passed is passes
    assert "judged as measured on 1,000 samples (gate.confidence is null)" in check.note


def test_the_gate_of_a_whole_spec_has_a_limit_and_a_confidence() -> None:
    gate = Spec(model="m.keras", data="d.npz").effective_gate()
    assert dropped(of_accuracy(4, 0, 1000), gate).passed
    check = dropped(of_accuracy(7, 0, 1000), gate)
    assert not check.passed
    assert "with 95% confidence; too few samples to be that sure: 1,000, about " in check.note
    assert not dropped(of_accuracy(11, 0, 1000), gate).passed


def test_a_handful_of_samples_proves_nothing() -> None:
    """A model of 20% accuracy is right on 5 samples that were chosen for it."""
    for lost, samples in ((0, 1), (0, 5), (1, 5), (0, 100)):
        check = dropped(of_accuracy(lost, 0, samples), GATE, samples)
        assert not check.passed
        assert dropped(of_accuracy(0, 0, samples), AS_MEASURED, samples).passed
    check = dropped(of_accuracy(0, 0, 5), GATE, 5)
    assert "too few samples to be that sure: 5, about 268 needed" in check.note


@pytest.mark.parametrize("limit", [0.1, 0.5, 1.0, 5.0])
def test_where_nothing_is_lost_the_samples_named_are_enough(limit: float) -> None:
    """The bound is z^2 / (n + z^2), about 2.7 / n."""
    gate = GateSpec(max_accuracy_drop=limit)
    note = dropped(of_accuracy(0, 0, 10), gate, 10).note
    needed = int(note.partition("about ")[2].partition(" needed")[0].replace(",", ""))
    assert needed == pytest.approx(270 / limit, rel=0.06)
    assert dropped(of_accuracy(0, 0, needed), gate, needed).passed
    assert not dropped(of_accuracy(0, 0, needed - 1), gate, needed - 1).passed


def test_the_samples_that_are_named_are_enough_and_one_less_is_not() -> None:
    check = dropped(of_accuracy(9, 2, 1000))
    needed = int(check.note.partition("about ")[2].partition(" needed")[0].replace(",", ""))
    for count, passes in ((needed, True), (needed - 1, False)):
        bound = score_interval(0.009 * count, 0.002 * count, count, 0.9)[1]
        assert (bound <= 0.01) is passes


def test_a_bootstrap_of_few_samples_bounds_nothing() -> None:
    gate = GateSpec(metric="my:loss", metric_direction="lower", max_metric_drop=0.05)
    check = dropped(of_loss(0.0, 0.0), gate, 99)
    assert not check.passed
    assert "too few samples to bound a drop of my:loss: 99, at least 100 needed" in check.note
    assert dropped(of_loss(0.0, 0.0), gate, 100).passed


@pytest.mark.parametrize(("lost", "won", "limit"), [(20, 0, 1.0), (5, 5, 0.0)])
def test_no_number_is_promised_where_none_would_do(lost: int, won: int, limit: float) -> None:
    check = dropped(of_accuracy(lost, won, 1000), GateSpec(max_accuracy_drop=limit))
    assert not check.passed
    assert "needed" not in check.note


def test_confidence_is_divided_among_candidates() -> None:
    assert each_confidence(0.95, 5) == pytest.approx(0.99)
    change = of_accuracy(5, 2, 1000)
    alone, among = (dropped(change, candidates=count) for count in (1, 5))
    assert alone.passed
    assert not among.passed
    assert "with 99% confidence (95% over 5 candidates, Bonferroni)" in among.note
    assert dropped(change, AS_MEASURED, candidates=5) == dropped(change, AS_MEASURED)


def test_another_accuracy_is_named() -> None:
    gate = GateSpec(metric="top_5", max_accuracy_drop=1.0)
    check = dropped(of_accuracy(5, 0, 1000, k=5), gate)
    assert check.name == "accuracy_drop"
    assert "of top-5 accuracy" in check.note


def test_another_metric_has_its_own_limit_and_unit() -> None:
    gate = GateSpec(metric="my:loss", metric_direction="lower", max_metric_drop=0.05)
    as_measured = gate.model_copy(update={"confidence": None})
    check = dropped(of_loss(0.04, 0.03), as_measured, 100)
    assert (check.name, check.limit, check.measured) == ("metric_drop", "<= 0.05", "0.04")
    assert check.passed
    assert not dropped(of_loss(0.06, 0.03), as_measured, 100).passed
    check = dropped(of_loss(0.04, 0.03), gate, 100)
    assert not check.passed
    # The width must shrink from 0.03 to 0.01: nine times the samples.
    assert "about 900 needed" in check.note


def test_another_metric_without_a_limit_does_not_pass_and_accuracy_is_judged_if_asked() -> None:
    gate = GateSpec(metric="my:loss", metric_direction="lower")
    check = dropped(of_loss(0.0, 0.0), gate)
    assert not check.passed
    assert check.note == "nobody set max_metric_drop; without it nothing passes"
    both = gate.model_copy(update={"max_metric_drop": 1.0, "max_accuracy_drop": 1.0})
    changes = (of_accuracy(20, 0, 1000), of_loss(0.5, 0.1))
    found = list(checks.drop_checks(changes, both, 1000))
    assert [(check.name, check.passed) for check in found] == [
        ("metric_drop", True),
        ("accuracy_drop", False),
    ]


@pytest.mark.parametrize(
    ("before", "after", "passes"), [(5, 0, False), (5, 1, True), (4, 0, True), (300, 0, False)]
)
def test_a_class_that_is_never_answered_any_more_is_a_collapse(
    before: int, after: int, passes: bool
) -> None:
    (dog, cat) = measured().classes
    cat = cat.model_copy(update={"answered_before": before, "answered_after": after})
    collapsed = measured(classes=(dog, cat))
    (check,) = checks.answer_checks(collapsed, GATE)
    assert (check.name, check.passed) == ("collapsed_classes", passes)
    if not passes:
        assert f"never answers cat (given to {before} samples by the original)" in check.note
    one_may = GATE.model_copy(update={"max_collapsed_classes": 1})
    assert [check.passed for check in checks.answer_checks(collapsed, one_may)] == [True]
    not_judged = GATE.model_copy(update={"max_collapsed_classes": None})
    assert list(checks.answer_checks(collapsed, not_judged)) == []


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
    gate = GateSpec(max_collapsed_classes=None, **limit)
    (check,) = checks.answer_checks(measured(), gate)
    assert (check.name, check.passed) == (name, passes)
    nothing = measured(classes=(), agreement=None, calibration_error=None)
    (unmeasured,) = checks.answer_checks(nothing, gate)
    assert (unmeasured.measured, unmeasured.passed) == (None, False)


def test_the_worst_class_is_named_wherever_it_stands() -> None:
    gate = GateSpec(max_worst_class_drop=1.0, max_collapsed_classes=None)
    (check,) = checks.answer_checks(measured(), gate)
    assert check.note == "class cat, 20 samples; 95% interval -2.00 to 36.00"


@pytest.mark.parametrize("gate", [GATE, GateSpec(metric="auc", max_metric_drop=0.1), GateSpec()])
def test_what_cannot_be_compared_fails(gate: GateSpec) -> None:
    (check,) = checks.drop_checks((), gate, 1000)
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
    found += checks.latency_checks(measures(), after, gate, {"litert_latency_ratio": "cannot"})
    (check,) = [check for check in found if check.name == name]
    assert check.passed is passes


def same_answers(judged: np.ndarray, exported: np.ndarray) -> bool:
    return checks.litert_same_answers(compared_answers(judged, exported), {}).passed


def test_an_export_that_answers_otherwise_fails() -> None:
    judged = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert same_answers(judged, judged + 1e-4)
    off = judged.copy()
    off[0, 1] += 0.1
    assert not same_answers(judged, off)
    assert not same_answers(judged, judged[:, ::-1])
    failed = checks.litert_same_answers(None, {"litert_same_answers": "no export"})
    assert (failed.passed, failed.note) == (False, "no export")


def test_a_near_tie_may_go_to_the_other_class() -> None:
    judged = np.array([[1.0, 1.0 - 1e-5]])
    assert same_answers(judged, judged[:, ::-1])


def test_a_clear_lead_may_not_go_to_the_other_class() -> None:
    judged = np.array([[1.0, 1.0 - 1.5e-3]])
    exported = judged + np.array([[-0.9e-3, 0.9e-3]])  # each answer alone is close enough
    assert not same_answers(judged, exported)


def test_a_model_that_changes_when_saved_fails() -> None:
    assert checks.digest_unchanged("a" * 64, "a" * 64, {}).passed
    assert not checks.digest_unchanged("a" * 64, "b" * 64, {}).passed
    assert not checks.digest_unchanged("a" * 64, None, {"digest_unchanged": "no"}).passed
