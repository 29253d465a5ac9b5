"""What is swapped on disk between validate and publish is found before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sound_verdict import sound_verdict
from tiny import tiny_cnn

from lrf_core.artifacts import (
    Analysis,
    Cost,
    DesignSpace,
    EpochRecord,
    FinetuneRecord,
    Lineage,
    ModelMeasures,
    Plan,
    PlanOutcome,
    Verdict,
)
from lrf_core.commands import app as cli
from lrf_core.errors import PublishRefusedError
from lrf_core.models.load import model_digest, save_model
from lrf_core.run.outputs import Outputs
from lrf_core.run.results import write_lineage

pytestmark = pytest.mark.usefixtures("exported_once")

FACTORIZED = "f" * 64
BASELINE = "b" * 64


def finished(folder: Path, seed: int = 0, baseline: str = BASELINE) -> Outputs:
    """The files of a run up to its verdict, which is a pass."""
    outputs, model = Outputs(folder), tiny_cnn(seed=seed)
    candidate = model_digest(model)
    lineage = Lineage(inputs={"model": baseline}, settings={}, parent=baseline)
    cost = Cost(params=10, macs=100)
    analysis = Analysis(
        lineage=lineage,
        model_name="tiny",
        model_digest=baseline,
        input_shape=(None, 16, 16, 3),
        output_shape=(None, 4),
        layers=(),
        baseline=ModelMeasures(cost=cost, weight_bytes=40),
        shards=(),
    )
    space = DesignSpace(
        lineage=lineage,
        model_digest=baseline,
        calibration_digest="c",
        similarity="nmse",
        layers=(),
        candidates=(),
    )
    plan = Plan(
        lineage=lineage,
        policy="knapsack",
        model_digest=baseline,
        factorized_digest=FACTORIZED,
        choices=(),
        before=cost,
        after=cost,
        predicted_loss=0.0,
    )
    training = FinetuneRecord(
        lineage=lineage,
        before_digest=FACTORIZED,
        after_digest=candidate,
        samples=1,
        steps=1,
        seconds=1.0,
        best_epoch=0,
        curve=(EpochRecord(epoch=0, loss=0, validation_loss=0, validation_accuracy=0),),
    )
    verdict = sound_verdict(candidate, baseline=baseline)
    folder.mkdir()
    for artifact in (analysis, space, plan, training, verdict):
        artifact.save(folder)
    save_model(model, outputs.candidate)
    outputs.report.write_text("<html>")
    write_lineage(outputs.lineage, analysis, space, PlanOutcome(plan, training, verdict))
    return outputs


def publish(outputs: Outputs) -> None:
    cli.app(["publish", "--out", str(outputs.folder)], standalone_mode=False)


def test_what_was_not_swapped_is_published(tmp_path: Path) -> None:
    outputs = finished(tmp_path / "run")
    publish(outputs)
    (manifest,) = outputs.release.rglob("manifest.json")
    content = json.loads(manifest.read_text())
    assert content["lineage"]["parent"] == BASELINE


def swap_model(outputs: Outputs, other: Outputs) -> None:
    outputs.candidate.write_bytes(other.candidate.read_bytes())


def swap_verdict(outputs: Outputs, other: Outputs) -> None:
    outputs.verdict.write_bytes(other.verdict.read_bytes())


def swap_model_and_verdict(outputs: Outputs, other: Outputs) -> None:
    swap_model(outputs, other)
    swap_verdict(outputs, other)


def swap_plan(outputs: Outputs, other: Outputs) -> None:
    plan = Plan.load(other.plan)
    plan.model_copy(update={"factorized_digest": "0" * 64}).save(outputs.plan)


def swap_plan_of_another_baseline(outputs: Outputs, other: Outputs) -> None:
    Plan.load(other.plan).model_copy(update={"model_digest": "0" * 64}).save(outputs.plan)


def swap_training(outputs: Outputs, other: Outputs) -> None:
    outputs.finetune.write_bytes(other.finetune.read_bytes())


def swap_baseline(outputs: Outputs, other: Outputs) -> None:
    """The lineage is forged: a verdict, all sound, that compares with another baseline."""
    candidate = Verdict.load(outputs.verdict).candidate_digest
    sound_verdict(candidate, baseline="0" * 64).save(outputs.verdict)


def forge_lineage(outputs: Outputs, other: Outputs) -> None:
    entries = json.loads(outputs.lineage.read_text())
    entries[-1]["inputs"]["baseline"] = "0" * 64
    outputs.lineage.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("swap", "named"),
    [
        (swap_model, "the verdict is about model"),
        (swap_verdict, "the verdict is about model"),
        (swap_model_and_verdict, r"finetune\.json led to model"),
        (swap_plan, r"plan\.json led to model 000000000000, but ffffffffffff was fine-tuned"),
        (swap_plan_of_another_baseline, r"plan\.json is about model 000000000000"),
        (swap_training, r"finetune\.json led to model"),
        (swap_baseline, r"analysis\.json is about model b+, but the verdict compares with"),
        (forge_lineage, r"lineage\.json has another lineage of the Verdict"),
    ],
)
def test_what_was_swapped_is_not_published(
    tmp_path: Path, swap: Callable[[Outputs, Outputs], None], named: str
) -> None:
    outputs = finished(tmp_path / "run")
    swap(outputs, finished(tmp_path / "other", seed=1))
    with pytest.raises(PublishRefusedError, match=named) as caught:
        publish(outputs)
    assert caught.value.exit_code == 3
    assert not outputs.release.exists()
