"""By a verdict of other limits, an edited one, or another one, nothing is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
from judged import stepped_cnn, verdict_of

from lrf_core.artifacts import Verdict
from lrf_core.errors import PublishRefusedError
from lrf_core.spec import GateSpec
from lrf_core.stages.publish import publish

pytestmark = pytest.mark.usefixtures("exported_once")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return stepped_cnn()


@pytest.mark.parametrize(
    ("judged", "asked", "named"),
    [
        (
            {"max_accuracy_drop": 5.0},
            {"max_accuracy_drop": 1.0},
            r"max_accuracy_drop .5\.0 instead",
        ),
        ({"confidence": None}, {}, r"confidence .None instead of 0\.95"),
        ({"max_worst_class_drop": 2.0}, {}, r"max_worst_class_drop .2\.0 instead of None"),
        ({"max_samples": 10}, {"max_samples": None}, "max_samples"),
    ],
    ids=["laxer", "less sure", "stricter", "fewer samples"],
)
def test_a_verdict_by_other_limits_than_asked_for_is_refused(
    model: keras.Model, tmp_path: Path, judged: dict[str, Any], asked: dict[str, Any], named: str
) -> None:
    verdict = verdict_of(model, gate=GateSpec(**judged))
    to = str(tmp_path / "store")
    with pytest.raises(PublishRefusedError, match=named) as caught:
        publish(model, verdict, to, name="tiny", attachments={}, gate=GateSpec(**asked))

    assert caught.value.exit_code == 3
    assert not (tmp_path / "store").exists()


def test_the_confidence_of_a_run_is_compared_undivided(model: keras.Model, tmp_path: Path) -> None:
    gate = GateSpec(max_accuracy_drop=1.0, confidence=0.95)
    verdict = verdict_of(model, gate=gate, candidates=3)
    # As it is after a file: numbers may come back as others that are equal.
    verdict = Verdict.load(verdict.save(tmp_path / "verdict.json"))
    release = publish(
        model, verdict, str(tmp_path / "store"), name="tiny", attachments={}, gate=gate
    )
    assert release.verdict_digest == verdict.digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"passed": false', b'"passed": true'),
        (b'"limit": "<= 1.00 points"', b'"limit": "<= 9.00 points"'),
        (b'"seal": "', b'"seal": "0'),
    ],
    ids=["passed", "limit", "seal"],
)
def test_a_verdict_file_that_was_edited_is_not_read(
    model: keras.Model, tmp_path: Path, old: bytes, new: bytes
) -> None:
    file = verdict_of(model, lost=20).save(tmp_path / "verdict.json")
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    with pytest.raises(PublishRefusedError, match="its seal does not fit"):
        Verdict.load(file)


def test_a_verdict_file_without_a_seal_is_not_read(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text(verdict_of(model).model_dump_json())
    with pytest.raises(PublishRefusedError, match="its seal does not fit"):
        Verdict.load(tmp_path)


def test_another_verdict_is_not_attached(model: keras.Model, tmp_path: Path) -> None:
    other = verdict_of(model, lost=1).save(tmp_path / "verdict.json")
    with pytest.raises(PublishRefusedError, match="is not the verdict to publish by"):
        publish(
            model,
            verdict_of(model),
            str(tmp_path / "store"),
            name="tiny",
            attachments={"verdict.json": other},
        )
