"""`python -m pipelines run`: the whole pipeline through kfp.local, in both outcomes of the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from tiny import tiny_cnn, tiny_data, train_tiny

from components.generate import STAGES
from lrf_core.artifacts import DesignSpace, Plan, Verdict
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.run.outputs import Outputs
from pipelines.cli import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inputs")
    data = tiny_data()
    save_model(train_tiny(tiny_cnn(), data), folder / "tiny.keras")
    x_train, y_train = data.train.arrays()
    x_test, y_test = data.test.arrays()
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return {
        "model": str(folder / "tiny.keras"),
        "data": str(folder / "data.npz"),
        "out": "result",
        "goal": {"params_reduction": 0.2},
        "explore": {"samples": 64, "ranks_per_mode": 4},
        "finetune": {"epochs": 1},
        "gate": {"max_accuracy_drop": 60.0, "latency_repeats": 3},
    }


def run_pipeline(folder: Path, settings: dict[str, Any], *flags: object) -> Ended:
    """In a process of its own, as a user would."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(settings))
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "spec.yaml", *map(str, flags)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def run_here(
    folder: Path,
    settings: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Ended:
    """In this process: for what ends before any step starts."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pipelines", "run", "spec.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return Ended(int(ended.value.code or 0), said.out, said.err)


# Six processes that import TensorFlow, and two plans. `make demo` runs the same on every change.
@pytest.mark.slow
def test_a_candidate_that_passes_is_published(settings: dict[str, Any], tmp_path: Path) -> None:
    ended = run_pipeline(tmp_path, settings)
    assert ended.code == 0, ended.err
    outputs = Outputs(tmp_path / "result")
    verdict, plan = Verdict.load(outputs.verdict), Plan.load(outputs.plan)
    assert verdict.passed
    assert all(file.is_file() for file in outputs.attachments().values())
    assert model_digest(load_model(outputs.factorized)) == plan.factorized_digest
    assert len(DesignSpace.load(outputs.design_space).layers) == len(plan.choices)
    [released] = outputs.release.glob("tiny/v-*/model.keras")
    published = keras.saving.load_model(released)
    assert model_digest(published) == verdict.candidate_digest
    lineage = [entry["artifact"] for entry in json.loads(outputs.lineage.read_bytes())]
    assert lineage[-1] == "Release"
    for stage in STAGES:
        assert f"{stage}: done in" in ended.err
    assert not (outputs.folder / "plans").exists()
    for table in ("Layers", "Before and after", "Gate: passed"):
        assert table in ended.out
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err
    assert "KFP Executor" not in ended.out + ended.err


@pytest.mark.slow
def test_the_smallest_plan_that_passes_is_published_though_another_fails(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    # The plan for the goal keeps nearly 80%, the other about 57%.
    gate = {**settings["gate"], "min_params_reduction": 0.3}
    ended = run_pipeline(tmp_path, {**settings, "gate": gate}, "--plans", 2)
    assert ended.code == 0, ended.err
    outputs = Outputs(tmp_path / "result")
    verdicts = [Verdict.load(outputs.folder / "plans" / number) for number in "01"]
    assert [verdict.passed for verdict in verdicts] == [False, True]
    for number, verdict in enumerate(verdicts):
        own = Outputs(outputs.folder / "plans" / str(number))
        assert model_digest(load_model(own.candidate)) == verdict.candidate_digest
        assert model_digest(load_model(own.factorized)) == Plan.load(own.plan).factorized_digest
    assert (Plan.load(outputs.plan).number, Verdict.load(outputs.verdict)) == (1, verdicts[1])
    [released] = outputs.release.glob("tiny/v-*/model.keras")
    assert model_digest(keras.saving.load_model(released)) == verdicts[1].candidate_digest
    assert ended.err.count("finetune: done in") == 2
    assert "Plans" in ended.out
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_no_plan_is_published_where_all_fail_the_gate(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    gate = {**settings["gate"], "min_params_reduction": 0.99}
    ended = run_pipeline(tmp_path, {**settings, "gate": gate}, "--plans", 2)
    assert ended.code == 3, ended.err
    outputs = Outputs(tmp_path / "result")
    verdict = Verdict.load(outputs.verdict)
    assert [check.name for check in verdict.checks if not check.passed] == ["params_reduction"]
    assert all(file.is_file() for file in outputs.attachments().values())
    assert not outputs.release.exists()
    assert "publish:" not in ended.err
    assert "not passed" in ended.out
    assert "shown here" in ended.out


def test_an_error_inside_a_step_is_one_line(settings: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", x=np.zeros((64, 8, 8, 3)), y=np.arange(64) % 4)
    # What an earlier run left must not look like the result of this one.
    Outputs(tmp_path / "result").folder.mkdir()
    Outputs(tmp_path / "result").verdict.write_text("{}")
    ended = run_pipeline(tmp_path, {**settings, "data": "small.npz"})
    assert ended.code == 2
    last = ended.err.splitlines()[-1]
    assert last.startswith("lrf: analyze: ")
    assert "(64, 8, 8, 3)" in last
    assert "Traceback" not in ended.err
    assert not Outputs(tmp_path / "result").verdict.exists()


def test_a_crash_inside_a_step_names_the_log(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def data():\n    raise SystemExit('gone')\n")
    ended = run_pipeline(tmp_path, {**settings, "data": "broken:data"})
    assert ended.code == 1
    assert "run.log" in ended.err.splitlines()[-1]
    assert "gone" in (tmp_path / "result" / "pipeline" / "run.log").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"modell": "x"}, "did you mean 'model'?"),
        ({"finetune": {"epochs": -1}}, "finetune.epochs"),
        ({"model": "none.keras"}, "no model at none.keras"),
        ({"data": "none.npz"}, "no data at none.npz"),
        ({"publish": {"to": "file:///dev/null/store"}}, "/dev/null/store"),
        ({"publish": {"to": "ftp://host/dir"}}, "unknown kind"),
        ({"out": "/dev/null/out"}, "/dev/null/out"),
    ],
)
def test_bad_input_ends_before_any_step_starts(
    change: dict[str, Any],
    told: str,
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = run_here(tmp_path, {**settings, **change}, capsys, monkeypatch)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("lrf: ")
    assert told in ended.err
    assert not ended.out
    assert not (tmp_path / "result").exists()
