"""A user may let a model through; who and why stays on record, and not everything goes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import keras
import pytest
from sound_verdict import sound_verdict
from tiny import tiny_cnn

from lrf_core.artifacts import Check, Override, Release, Verdict
from lrf_core.errors import LrfError, PublishRefusedError, SpecError
from lrf_core.models.load import model_digest
from lrf_core.spec import GateSpec, OverrideSpec, make_spec
from lrf_core.stages.override import NEVER_OVERRIDDEN, override_of, requested_override
from lrf_core.stages.publish import publish, read_release

pytestmark = pytest.mark.usefixtures("exported_once")


SLOW_IN_LITERT = GateSpec(max_accuracy_drop=1.0, max_litert_latency_ratio=1.0)
FAILED = ("accuracy_drop", "litert_latency_ratio")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn()


def refused(model: keras.Model, **numbers: Any) -> Verdict:
    """A verdict that failed the drop only, unless the numbers say otherwise."""
    return sound_verdict(model_digest(model), **{"lost": 20, **numbers})


def refused_twice(model: keras.Model) -> Verdict:
    """One that failed two checks, of which one was not measured."""
    return refused(model, gate=SLOW_IN_LITERT, litert_ms=(0.5, None))


def decided(verdict: Verdict, *checks: str) -> Override:
    return override_of(verdict, by="A. Miller", reason="needed for the demo", checks=checks)


def test_a_release_keeps_who_let_it_through_and_why(
    model: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdict = refused_twice(model)
    override = decided(verdict)
    with caplog.at_level(logging.WARNING, "lrf"):
        release = publish(
            model, verdict, str(tmp_path), name="tiny", attachments={}, override=override
        )

    assert release == read_release(str(tmp_path), "tiny", release.version)
    assert release.override == override
    assert override.checks == verdict.failed()
    (file,) = tmp_path.rglob("override.json")
    assert Override.load(file) == override
    assert {"override.json", "model.keras"} < {found.path for found in release.files}
    (record,) = [found for found in caplog.records if found.levelno == logging.WARNING]
    for words in ("did not pass", "accuracy_drop, litert_latency_ratio", "A. Miller", "the demo"):
        assert words in record.getMessage()
    assert verdict.passed is False


def test_named_checks_must_be_all_that_failed(model: keras.Model) -> None:
    verdict = refused_twice(model)
    assert decided(verdict, *reversed(FAILED)).checks == verdict.failed()
    with pytest.raises(PublishRefusedError, match="also failed accuracy_drop"):
        decided(verdict, "litert_latency_ratio")
    with pytest.raises(SpecError, match="agreement: no check of this name failed"):
        decided(verdict, "accuracy_drop", "agreement")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("same_output_shape", {"shape": (None, 5)}),
        ("finite_outputs", {"not_finite": 3}),
        ("digest_unchanged", {"reloaded": "e" * 64}),
    ],
)
def test_some_checks_cannot_be_overridden(
    model: keras.Model, tmp_path: Path, name: str, numbers: dict[str, Any]
) -> None:
    verdict = refused(model, **numbers)
    assert name in NEVER_OVERRIDDEN
    with pytest.raises(PublishRefusedError, match=f"cannot be published by an override: {name}"):
        decided(verdict)
    # Nor by an override that was made by hand.
    sound = decided(refused(model))
    forged = sound.model_copy(
        update={"checks": verdict.failed(), "verdict_digest": verdict.digest()}
    )
    with pytest.raises(PublishRefusedError, match=f"cannot be published by an override: {name}"):
        publish(model, verdict, str(tmp_path / "s"), name="a", attachments={}, override=forged)
    assert not (tmp_path / "s").exists()


def test_a_check_that_is_gone_cannot_be_overridden(model: keras.Model) -> None:
    verdict = refused(model, not_finite=3)
    for name in NEVER_OVERRIDDEN:
        others = tuple(check for check in verdict.checks if check.name != name)
        with pytest.raises(PublishRefusedError, match=f"check {name} is missing"):
            decided(verdict.model_copy(update={"checks": others}))


@pytest.mark.parametrize(
    "changes", [{"passed": True}, {"checks": ()}, {"evidence": None}, {"accuracy_drop": None}]
)
def test_an_altered_verdict_is_refused_with_an_override_too(
    model: keras.Model, tmp_path: Path, changes: dict[str, Any]
) -> None:
    sound = refused(model)
    altered = sound.model_copy(update=changes)
    with pytest.raises(PublishRefusedError, match=r"was altered|older version"):
        decided(altered)
    for override in (decided(sound), None):
        with pytest.raises(PublishRefusedError, match=r"was altered|older version"):
            publish(
                model, altered, str(tmp_path / "s"), name="a", attachments={}, override=override
            )
    assert not (tmp_path / "s").exists()


def test_an_override_is_about_one_verdict_and_one_model(model: keras.Model, tmp_path: Path) -> None:
    override = decided(refused(model))
    worse = refused_twice(model)
    drop, slow = worse.failed()
    other = tiny_cnn(seed=1)
    milder = drop.model_copy(update={"measured": "0.00 points"})

    def with_checks(*checks: Check) -> Override:
        return decided(worse).model_copy(update={"checks": checks})

    cases = [
        (model, worse, override, "the override is about verdict"),
        (other, refused(model), override, "is about model"),
        (other, refused(other), override, "the override is about verdict"),
        (model, worse, with_checks(), "override was altered"),
        (model, worse, with_checks(drop), "also failed"),
        (model, worse, with_checks(milder, slow), "override was altered"),
    ]
    for published, verdict, decision, message in cases:
        with pytest.raises(PublishRefusedError, match=message):
            publish(
                published,
                verdict,
                str(tmp_path / "s"),
                name="a",
                attachments={},
                override=decision,
            )
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("who", " "), ("\n", "why")])
def test_nobody_and_no_reason_decide_nothing(model: keras.Model, by: str, reason: str) -> None:
    with pytest.raises(SpecError, match="who decides, and why"):
        override_of(refused(model), by=by, reason=reason)


def test_a_model_that_passed_needs_no_override(model: keras.Model) -> None:
    passed = refused(model, lost=0)
    with pytest.raises(SpecError, match="publish it without an override"):
        decided(passed)
    asked = OverrideSpec(by="a", reason="b", checks=("c",), model="0" * 12)
    assert requested_override(passed, asked) is None


def test_the_spec_names_the_model(model: keras.Model, caplog: pytest.LogCaptureFixture) -> None:
    verdict = refused(model)
    digest = verdict.candidate_digest
    asked = OverrideSpec(by="a", reason="b", checks=("accuracy_drop",), model=digest[:16])
    found = requested_override(verdict, asked)
    assert found is not None
    assert (found.by, found.reason, found.checks) == ("a", "b", verdict.failed())
    assert requested_override(verdict, None) is None
    assert not caplog.text
    other = asked.model_copy(update={"model": "f" * 64})
    assert requested_override(verdict, other) is None
    assert "it is not applied" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checks": []}, "publish.override.checks"),
        ({"model": "abc"}, "publish.override.model"),
        ({"by": ""}, "publish.override.by"),
        ({"why": "x"}, "unknown setting 'publish.override.why'"),
    ],
)
def test_a_spec_without_all_of_it_is_refused(change: dict[str, Any], message: str) -> None:
    override = {"by": "a", "reason": "b", "checks": ["c"], "model": "0" * 12, **change}
    with pytest.raises(LrfError) as caught:
        make_spec({"model": "m", "data": "d", "publish": {"override": override}})
    assert message in str(caught.value)


def test_a_manifest_without_an_override_reads_as_before(model: keras.Model, tmp_path: Path) -> None:
    passed = refused(model, lost=0)
    release = publish(model, passed, str(tmp_path), name="tiny", attachments={})
    (manifest,) = tmp_path.rglob("manifest.json")
    content = json.loads(manifest.read_text())
    assert content.pop("override") is None  # as versions before overrides wrote it
    assert Release.model_validate(content) == release
