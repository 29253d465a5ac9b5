"""A verdict whose checks do not follow from its own numbers is refused, whatever its seal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from judged import verdict_of
from sound_verdict import GATE, rejudged, sound_verdict
from tiny import tiny_cnn

from lrf_core.artifacts import Verdict
from lrf_core.errors import PublishRefusedError
from lrf_core.spec import GateSpec
from lrf_core.stages.publish import publish
from lrf_core.stages.refuse import check_verdict_follows_from_numbers

EVERY_LIMIT = GateSpec(
    metric="top_2",
    max_accuracy_drop=1.0,
    max_worst_class_drop=50.0,
    min_agreement=90.0,
    max_ece_drift=10.0,
    min_params_reduction=0.1,
    min_macs_reduction=0.1,
    max_weight_bytes=10_000,
    max_keras_latency_ratio=2.0,
    max_litert_latency_ratio=2.0,
)
GATES = {
    "default": GATE,
    "every limit": EVERY_LIMIT,
    "as measured": GATE.model_copy(update={"confidence": None}),
    "loss": GateSpec(metric="sparse_categorical_crossentropy", max_metric_drop=1.0),
    "both": GateSpec(
        metric="sparse_categorical_crossentropy", max_metric_drop=1.0, max_accuracy_drop=2.0
    ),
}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn()


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("lost", [0, 3, 40])
def test_what_the_gate_made_follows_from_its_numbers(
    gate: GateSpec, candidates: int, lost: int, tmp_path: Path
) -> None:
    made = sound_verdict(gate=gate, candidates=candidates, lost=lost)
    check_verdict_follows_from_numbers(made)
    check_verdict_follows_from_numbers(Verdict.load(made.save(tmp_path / "verdict.json")))


@pytest.mark.parametrize("numbers", [{"shape": (None, 5)}, {"not_finite": 2}])
def test_what_could_not_be_compared_is_a_sound_fail(numbers: dict[str, Any]) -> None:
    made = sound_verdict(gate=EVERY_LIMIT, **numbers)
    assert not made.passed
    check_verdict_follows_from_numbers(made)


def changed(**values: Any) -> Callable[[Verdict], Verdict]:
    return lambda verdict: verdict.model_copy(update=values)


def change_check(name: str, **values: Any) -> Callable[[Verdict], Verdict]:
    def change(verdict: Verdict) -> Verdict:
        checks = tuple(
            check.model_copy(update=values) if check.name == name else check
            for check in verdict.checks
        )
        return verdict.model_copy(update={"checks": checks})

    return change


def change_metric(**values: Any) -> Callable[[Verdict], Verdict]:
    def change(verdict: Verdict) -> Verdict:
        (accuracy, *others) = verdict.metrics
        metrics = (accuracy.model_copy(update=values), *others)
        return rejudged(verdict.model_copy(update={"metrics": metrics}))

    return change


def without_failed(verdict: Verdict) -> Verdict:
    passing = tuple(check for check in verdict.checks if check.passed)
    return verdict.model_copy(update={"checks": passing, "passed": True})


def flipped(verdict: Verdict) -> Verdict:
    checks = tuple(check.model_copy(update={"passed": True}) for check in verdict.checks)
    return verdict.model_copy(update={"checks": checks, "passed": True})


def twice(verdict: Verdict) -> Verdict:
    return verdict.model_copy(update={"checks": (*verdict.checks, verdict.checks[0])})


def reordered(verdict: Verdict) -> Verdict:
    return verdict.model_copy(update={"checks": verdict.checks[::-1]})


def with_an_extra(verdict: Verdict) -> Verdict:
    extra = verdict.checks[0].model_copy(update={"name": "blessed"})
    return verdict.model_copy(update={"checks": (*verdict.checks, extra)})


def with_lax_gate(verdict: Verdict) -> Verdict:
    lax = GateSpec(max_accuracy_drop=50.0).model_dump(mode="json")
    settings = {**verdict.lineage.settings, "gate": lax}
    return verdict.model_copy(
        update={"lineage": verdict.lineage.model_copy(update={"settings": settings})}
    )


def with_lineage(**values: Any) -> Callable[[Verdict], Verdict]:
    return lambda verdict: verdict.model_copy(
        update={"lineage": verdict.lineage.model_copy(update=values)}
    )


def with_class_gone(verdict: Verdict) -> Verdict:
    return rejudged(verdict.model_copy(update={"classes": verdict.classes[1:]}))


@pytest.mark.parametrize(
    ("alter", "named"),
    [
        (without_failed, "check accuracy_drop is missing"),
        (flipped, "check accuracy_drop says passed .2.00 points.*but its numbers give failed"),
        (changed(passed=True), "says passed, its numbers do not"),
        (twice, "check same_output_shape stands in it twice"),
        (reordered, "its checks are in another order"),
        (with_an_extra, "blessed is no check of its gate"),
        (change_check("accuracy_drop", limit="<= 9.00 points"), "check accuracy_drop says"),
        (change_check("accuracy_drop", measured="0.00 points"), "check accuracy_drop says"),
        (change_check("finite_outputs", measured="1 of 1,000"), "check finite_outputs says"),
        (with_lax_gate, "check accuracy_drop says failed .*limit <= 1.00 points"),
        (with_lineage(settings={}), "does not hold the settings of the gate"),
        (with_lineage(parent="e" * 64), "its lineage names other models"),
        (
            with_lineage(inputs={"baseline": "e" * 64, "candidate": "c" * 64}),
            "its lineage names other models",
        ),
        (changed(baseline_digest="e" * 64), "its lineage names other models"),
        (change_metric(lost=2), "the change of accuracy does not follow"),
        (change_metric(drop=0.0, after=95.0), "the change of accuracy does not follow"),
        (change_metric(lost=None, won=None), "its first metric is not accuracy"),
        (changed(accuracy_drop=0.0), "the accuracy stands in it with several values"),
        (changed(agreement=99.9), "agree on more samples than accuracy leaves"),
        (changed(metrics=()), "a part of the comparison is missing"),
        (with_class_gone, "its classes do not hold all samples"),
    ],
)
def test_an_altered_verdict_publishes_nothing(
    model: keras.Model, tmp_path: Path, alter: Callable[[Verdict], Verdict], named: str
) -> None:
    failed = sound_verdict(lost=20)
    assert [check.name for check in failed.failed()] == ["accuracy_drop"]
    with pytest.raises(PublishRefusedError, match=rf"was altered .*{named}") as caught:
        check_verdict_follows_from_numbers(alter(failed))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alter", [without_failed, flipped])
def test_a_forged_verdict_with_a_new_seal_publishes_nothing(
    model: keras.Model, tmp_path: Path, alter: Callable[[Verdict], Verdict]
) -> None:
    """Anyone can make the seal again: it is a plain sha256."""
    file = alter(verdict_of(model, lost=400)).save(tmp_path / "verdict.json")
    forged = Verdict.load(file)
    assert forged.passed
    with pytest.raises(PublishRefusedError, match="was altered"):
        publish(model, forged, str(tmp_path / "store"), name="tiny", attachments={}, gate=GATE)
    assert not (tmp_path / "store").exists()


def test_a_model_that_is_right_on_5_chosen_samples_is_not_published(
    model: keras.Model, tmp_path: Path
) -> None:
    chosen = verdict_of(model, samples=5)
    assert [check.name for check in chosen.failed()] == ["accuracy_drop"]
    with pytest.raises(PublishRefusedError, match="failed: accuracy_drop"):
        publish(model, chosen, str(tmp_path / "store"), name="tiny", attachments={})


def test_a_verdict_file_of_version_1_can_be_shown_and_not_be_published_by(
    model: keras.Model, tmp_path: Path
) -> None:
    content = json.loads(verdict_of(model).model_dump_json(exclude={"evidence"}))
    older = Verdict.model_validate({**content, "schema_version": 1})
    read = Verdict.load(older.save(tmp_path / "verdict.json"))
    assert read.passed
    with pytest.raises(PublishRefusedError, match=r"older version of lrf.* judge the model again"):
        publish(model, read, str(tmp_path / "store"), name="tiny", attachments={})
