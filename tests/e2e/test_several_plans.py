"""Several plans, each fine-tuned once: by `lrf compress`, and stage by stage."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_cnn, tiny_data, train_tiny

from lrf_core.artifacts import FinetuneRecord, Plan, Verdict
from lrf_core.commands import app as cli
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.run import workflow
from lrf_core.run.outputs import Outputs

OF_PLAN = ("plan.json", "factorized/model.keras", "candidate/model.keras", "finetune.json")
Lrf = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """A spec of a model that errs, and of plans far apart, so that smaller ones lose more.

    Nothing is won back by training: what comes out is near what was predicted.
    """
    folder = tmp_path_factory.mktemp("inputs")
    data = tiny_data(train=1024, test=512, noise=130.0)
    save_model(train_tiny(tiny_cnn(), data, epochs=4), folder / "tiny.keras")
    (x_train, y_train), (x_test, y_test) = data.train.arrays(), data.test.arrays()
    np.savez(folder / "tiny.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return {
        "model": str(folder / "tiny.keras"),
        "data": str(folder / "tiny.npz"),
        "goal": {"max_accuracy_drop": 2.0},
        "explore": {"samples": 64, "ranks_per_mode": 6, "methods": ["tucker", "svd"]},
        "decompose": {"refit": False},
        "finetune": {"epochs": 0},
    }


@pytest.fixture
def lrf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lrf:
    """Run a command with a spec, in this process."""

    def run(command: str, settings: dict[str, object], *flags: object) -> tuple[int, str, str]:
        spec = tmp_path / "spec.yaml"
        spec.write_text(json.dumps(settings))
        arguments = [command, "--spec", spec, *flags]
        monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def gated(settings: dict[str, object], out: Path, drop: float) -> dict[str, object]:
    """Judged as measured: no interval of 512 samples tells the drops of these plans apart."""
    gate = {"max_accuracy_drop": drop, "confidence": None, "latency_repeats": 3}
    return {**settings, "out": str(out), "gate": gate}


def made(files: list[Path]) -> list[int]:
    return [file.stat().st_mtime_ns for file in files]


def assert_shown(outputs: Outputs, number: int) -> None:
    """The folder holds the artifacts of this plan, where one plan alone has them."""
    chosen = Outputs(outputs.folder / "plans" / str(number))
    for name in ("plan", "factorized", "candidate", "finetune", "verdict"):
        shown, own = getattr(outputs, name), getattr(chosen, name)
        assert shown.read_bytes() == own.read_bytes(), name
    assert Plan.load(outputs.plan).number == number
    verdict = Verdict.load(outputs.verdict)
    assert verdict.candidate_digest == model_digest(load_model(outputs.candidate))
    assert verdict.candidate_digest == FinetuneRecord.load(outputs.finetune).after_digest


def test_the_smallest_that_passes_is_published(
    inputs: dict[str, object], lrf: Lrf, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path / "out")
    code, out, err = lrf("compress", gated(inputs, outputs.folder, 100.0), "--json")
    assert code == 0, err
    result = json.loads(out)
    plans = result["plans"]
    assert [each["number"] for each in plans] == [0, 1, 2]
    sizes = [each["verdict"]["candidate"]["cost"]["params"] for each in plans]
    # Which number is the smallest hangs on the trained weights, and they on the processor.
    assert len(set(sizes)) == 3
    smallest = sizes.index(min(sizes))
    others = [i for i in range(3) if i != smallest]
    assert [each["picked"] for each in plans] == [i == smallest for i in range(3)]
    assert result["release"]["model_digest"] == plans[smallest]["verdict"]["candidate_digest"]
    assert_shown(outputs, smallest)

    # A stricter gate, which the smallest fails: nothing is trained again, and a larger is taken.
    trained = made([outputs.folder / "plans" / str(i) / file for i in range(3) for file in OF_PLAN])
    drops = [each["verdict"]["accuracy_drop"] for each in plans]
    larger = min(drops[i] for i in others)
    assert larger < drops[smallest], (
        "the smallest plan must lose more for this test to tell a thing"
    )
    strict = gated(inputs, outputs.folder, (larger + drops[smallest]) / 2)
    code, out, err = lrf("compress", strict)
    assert code == 0, err
    kept = [outputs.folder / "plans" / str(i) / file for i in range(3) for file in OF_PLAN]
    assert made(kept) == trained
    verdicts = [Verdict.load(outputs.folder / "plans" / str(i)) for i in range(3)]
    assert not verdicts[smallest].passed
    passed = [i for i in others if verdicts[i].passed]
    assert passed
    taken = min(passed, key=sizes.__getitem__)
    assert_shown(outputs, taken)
    released = [load_model(file) for file in outputs.release.rglob("model.keras")]
    assert {model_digest(model) for model in released} == {
        verdicts[smallest].candidate_digest,
        verdicts[taken].candidate_digest,
    }
    assert "Plans" in out
    assert "picked" in out
    assert "Accuracy drop" in out
    assert "The smallest that passed was picked" in outputs.report.read_text()


@pytest.mark.slow
def test_where_none_passes_the_least_bad_is_shown_and_nothing_is_published(
    inputs: dict[str, object], lrf: Lrf, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path / "out")
    settings = gated(inputs, outputs.folder, 100.0)
    settings["gate"] = {**settings["gate"], "min_params_reduction": 0.99}  # type: ignore[dict-item]
    code, out, err = lrf("compress", settings, "--plans", 2)
    assert code == 3, err
    assert not outputs.release.exists()
    assert "shown here" in out
    assert "not passed: params_reduction" in out.replace("\n", " ")
    assert "None passed" in outputs.report.read_text()
    verdicts = [Verdict.load(outputs.folder / "plans" / str(i)) for i in range(2)]
    drops = [verdict.accuracy_drop for verdict in verdicts]
    assert_shown(outputs, drops.index(min(drops)))


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_the_plan_that_was_not_finished(
    inputs: dict[str, object],
    lrf: Lrf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = Outputs(tmp_path / "out")
    settings = gated(inputs, outputs.folder, 100.0)
    finetune = workflow.stages.finetune
    started: list[int] = []

    def cut(*given: object, **settings: object) -> object:
        started.append(len(started))
        if len(started) == 2:
            raise KeyboardInterrupt
        return finetune(*given, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(workflow.stages, "finetune", cut)
        code, _, err = lrf("compress", settings, "--plans", 2)
    assert code == 130, err
    first = [outputs.folder / "plans/0" / name for name in OF_PLAN]
    second = [outputs.folder / "plans/1" / name for name in OF_PLAN[:2]]
    kept = made([*first, *second])
    assert not (outputs.folder / "plans/1/finetune.json").exists()
    assert not outputs.plan.exists()
    code, _, err = lrf("compress", settings, "--plans", 2)
    assert code == 0, err
    assert made([*first, *second]) == kept
    assert "finetune of plan 0: loaded from the earlier run" in caplog.messages
    assert "finetune of plan 1: loaded from the earlier run" not in caplog.messages
    assert_shown(outputs, Plan.load(outputs.plan).number)


@pytest.mark.slow
def test_stage_by_stage_is_the_whole_way(
    inputs: dict[str, object], lrf: Lrf, tmp_path: Path
) -> None:
    by_stage, at_once = Outputs(tmp_path / "stages"), Outputs(tmp_path / "once")
    settings = gated(inputs, by_stage.folder, 100.0)
    for stage in ("analyze", "explore"):
        assert lrf(stage, settings)[0] == 0
    code, out, err = lrf("decompose", settings, "--plans", 2, "--json")
    assert code == 0, err
    assert [plan["number"] for plan in json.loads(out)["plans"]] == [0, 1]
    code, out, err = lrf("finetune", settings)
    assert code == 0, err
    assert out.count("Fine-tuned on") == 2
    code, out, err = lrf("validate", settings, "--json")
    assert code == 0, err
    judged = json.loads(out)
    assert_shown(by_stage, judged["picked"])
    code, _, err = lrf("compress", gated(inputs, at_once.folder, 100.0), "--plans", 2)
    assert code == 0, err
    for file in ("plans/0/plan.json", "plans/1/plan.json", "plan.json"):
        apart, together = (Plan.load(each.folder / file) for each in (by_stage, at_once))
        assert apart.factorized_digest == together.factorized_digest
    assert (
        Verdict.load(by_stage.verdict).candidate_digest
        == Verdict.load(at_once.verdict).candidate_digest
    )
    # One plan again: no folder of plans is left that finetune could take for this one's.
    code, out, err = lrf("decompose", settings, "--plans", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["number"] == 0
    assert by_stage.of_plans() == (by_stage,)
    assert lrf("finetune", settings)[0] == lrf("validate", settings)[0] == 0
    assert Plan.load(by_stage.plan).asked == 1
