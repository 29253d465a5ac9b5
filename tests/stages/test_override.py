"""A person may let a model through; who and why stays on record, and not everything goes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import keras
import pytest
from tiny import tiny_cnn

from lrf_core.artifacts import (
    Check,
    Cost,
    Lineage,
    ModelMeasures,
    Override,
    Release,
    Verdict,
)
from lrf_core.errors import LrfError, PublishRefusedError, SpecError
from lrf_core.models.load import model_digest
from lrf_core.spec import OverrideSpec, make_spec
from lrf_core.stages.override import NEVER_OVERRIDDEN, override_asked, override_of
from lrf_core.stages.publish import publish, read_release

pytestmark = pytest.mark.usefixtures("exported_once")


def check(name: str, passed: bool = True, measured: str | None = "x") -> Check:
    return Check(name=name, limit="y", measured=measured, passed=passed)


SOUND = tuple(check(name) for name in NEVER_OVERRIDDEN)
DROP = check("accuracy_drop", passed=False)
SLOW = check("litert_latency_ratio", passed=False, measured=None)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn()


def refused(model: keras.Model, *checks: Check, **changes: Any) -> Verdict:
    """A verdict with these checks beside the sound ones."""
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=False,
        baseline_digest="b" * 64,
        candidate_digest=model_digest(model),
        checks=(*SOUND, *checks),
        baseline=measures,
        candidate=measures,
        accuracy_drop=1.5,
    )
    return verdict.model_copy(update=changes)


def decided(verdict: Verdict, *checks: str) -> Override:
    return override_of(verdict, by="A. Miller", reason="needed for the demo", checks=checks)


def test_a_release_keeps_who_let_it_through_and_why(
    model: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verdict = refused(model, DROP, SLOW)
    override = decided(verdict)
    with caplog.at_level(logging.WARNING, "lrf"):
        release = publish(
            model, verdict, str(tmp_path), name="tiny", attachments={}, override=override
        )

    assert release == read_release(str(tmp_path), "tiny", release.version)
    assert release.override == override
    assert override.checks == (DROP, SLOW)
    (file,) = tmp_path.rglob("override.json")
    assert Override.load(file) == override
    assert {"override.json", "model.keras"} < {found.path for found in release.files}
    (record,) = [found for found in caplog.records if found.levelno == logging.WARNING]
    for words in ("did not pass", "accuracy_drop, litert_latency_ratio", "A. Miller", "the demo"):
        assert words in record.getMessage()
    assert verdict.passed is False


def test_named_checks_must_be_all_that_failed(model: keras.Model) -> None:
    verdict = refused(model, DROP, SLOW)
    assert decided(verdict, "litert_latency_ratio", "accuracy_drop").checks == (DROP, SLOW)
    with pytest.raises(PublishRefusedError, match="also failed accuracy_drop"):
        decided(verdict, "litert_latency_ratio")
    with pytest.raises(SpecError, match="agreement: no check of this name failed"):
        decided(verdict, "accuracy_drop", "agreement")


@pytest.mark.parametrize("name", NEVER_OVERRIDDEN)
@pytest.mark.parametrize("is_there", [True, False])
def test_some_checks_cannot_be_overridden(model: keras.Model, name: str, is_there: bool) -> None:
    others = [found for found in SOUND if found.name != name]
    bad = [check(name, passed=False)] if is_there else []
    verdict = refused(model).model_copy(update={"checks": (*others, *bad, DROP)})
    with pytest.raises(PublishRefusedError, match=f"cannot be published by an override: {name}"):
        decided(verdict)


@pytest.mark.parametrize(
    "verdict_changes",
    [
        {"checks": (*SOUND, check("accuracy_drop", passed=False, measured=None))},
        {"checks": (*SOUND, check("metric_drop", passed=False, measured=None))},
        {"checks": (*SOUND, SLOW), "accuracy_drop": None},
    ],
)
def test_a_model_that_was_not_measured_cannot_be_let_through(
    model: keras.Model, verdict_changes: dict[str, Any]
) -> None:
    with pytest.raises(PublishRefusedError, match="cannot be published by an override"):
        decided(refused(model, DROP, **verdict_changes))


@pytest.mark.parametrize(
    "verdict_changes",
    [
        {"passed": True},
        {"checks": ()},
        {"checks": SOUND},
        {"checks": (*SOUND, DROP, check("agreement", measured=None))},
    ],
)
def test_an_altered_verdict_is_refused_as_ever(
    model: keras.Model, tmp_path: Path, verdict_changes: dict[str, Any]
) -> None:
    sound = refused(model, DROP)
    altered = sound.model_copy(update=verdict_changes)
    with pytest.raises(PublishRefusedError, match="was altered"):
        decided(altered)
    for override in (decided(sound), None):
        with pytest.raises(PublishRefusedError, match="was altered"):
            publish(
                model, altered, str(tmp_path / "s"), name="a", attachments={}, override=override
            )
    assert not (tmp_path / "s").exists()


def test_an_override_is_about_one_verdict_and_one_model(model: keras.Model, tmp_path: Path) -> None:
    override = decided(refused(model, DROP))
    worse = refused(model, DROP, SLOW)
    other = tiny_cnn(seed=1)
    cases = [
        (model, worse, override, "the override is about verdict"),
        (other, refused(model, DROP), override, "is about model"),
        (model, worse, decided(worse).model_copy(update={"checks": ()}), "override was altered"),
        (model, worse, decided(worse).model_copy(update={"checks": (DROP,)}), "also failed"),
        (
            model,
            worse,
            decided(worse).model_copy(
                update={"checks": (check("accuracy_drop", False, "0"), SLOW)}
            ),
            "override was altered",
        ),
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
        override_of(refused(model, DROP), by=by, reason=reason)


def test_a_model_that_passed_needs_no_override(model: keras.Model) -> None:
    passed = refused(model, check("accuracy_drop"), passed=True)
    with pytest.raises(SpecError, match="publish it without an override"):
        decided(passed)
    asked = OverrideSpec(by="a", reason="b", checks=("c",), model="0" * 12)
    assert override_asked(passed, asked) is None


def test_the_spec_names_the_model(model: keras.Model, caplog: pytest.LogCaptureFixture) -> None:
    verdict = refused(model, DROP)
    digest = verdict.candidate_digest
    asked = OverrideSpec(by="a", reason="b", checks=("accuracy_drop",), model=digest[:16])
    found = override_asked(verdict, asked)
    assert found is not None
    assert (found.by, found.reason, found.checks) == ("a", "b", (DROP,))
    assert override_asked(verdict, None) is None
    assert not caplog.text
    other = asked.model_copy(update={"model": "f" * 64})
    assert override_asked(verdict, other) is None
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
    passed = refused(model, check("accuracy_drop"), passed=True)
    release = publish(model, passed, str(tmp_path), name="tiny", attachments={})
    (manifest,) = tmp_path.rglob("manifest.json")
    content = json.loads(manifest.read_text())
    assert content.pop("override") is None  # as versions before overrides wrote it
    assert Release.model_validate(content) == release
