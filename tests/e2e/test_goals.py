"""Limits of a goal as flags of `lrf decompose`: kept, recorded, or refused with what can be had."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Trained

import lrf_core as lrf
from lrf_core.commands import app as cli
from lrf_core.models.load import weight_bytes
from lrf_core.run.outputs import Outputs

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def explored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = Outputs(tmp_path_factory.mktemp("goals"))
    model = lrf.load_model(trained.model_file)
    data = lrf.open_data(str(trained.data_file), model)
    settings = lrf.ExploreSpec(methods=("tucker", "svd"), samples=64, ranks_per_mode=8)
    analysis = lrf.analyze(model, data, settings=settings)
    analysis.save(outputs.analysis)
    lrf.explore(model, data, analysis, settings=settings).save(outputs.design_space)
    return outputs.folder


@pytest.fixture
def decompose(
    trained: Trained,
    explored: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    def run(*flags: object) -> tuple[int, str]:
        arguments = [trained.model_file, "--data", trained.data_file, "--out", explored, *flags]
        monkeypatch.setattr(sys, "argv", ["lrf", "decompose", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        caught = capsys.readouterr()
        return int(ended.value.code or 0), caught.err

    return run


def test_limits_are_flags_and_are_recorded(
    trained: Trained, explored: Path, decompose: Run
) -> None:
    before = weight_bytes(trained.model)
    code, said = decompose("--set", f"goal.max_weight_bytes={before // 2}", "--macs-reduction", 0.2)
    assert code == 0, said
    plan = lrf.Plan.load(explored)
    assert plan.limits == {"macs": pytest.approx(0.8 * plan.before.macs), "bytes": before // 2}
    assert weight_bytes(lrf.load_model(explored / "factorized")) <= before // 2
    code, said = decompose(
        "--set", "goal.max_predicted_loss=0.05", "--set", "decompose.minimize=macs"
    )
    assert code == 0, said
    plan = lrf.Plan.load(explored)
    assert (plan.minimized, plan.limits) == ("macs", {"sensitivity": 0.05})
    assert plan.after.macs < plan.before.macs


def test_a_budget_below_the_smallest_plan_names_one_that_can_be_had(decompose: Run) -> None:
    code, said = decompose("--set", "goal.max_params=100", "--set", "goal.bytes_reduction=0.2")
    assert code == 2
    assert "cannot be reached: the smallest plan reaches" in said
    smallest = re.search(r"reaches params_reduction [\d.]+ \(max_params (\d+)\)", said)
    assert smallest is not None
    code, said = decompose(
        "--set", f"goal.max_params={smallest[1]}", "--set", "goal.bytes_reduction=0.2"
    )
    assert code == 0, said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--set", "goal.max_latency_ms=1"), "measure it with explore.latency"),
        (("--set", "decompose.minimize=latency", "--set", "goal.similarity=0.5"), "`lrf profile`"),
        (
            ("--set", "decompose.minimize=params", "--set", f"goal.max_macs={10**9}"),
            "needs a limit on the loss",
        ),
        (("--set", "decompose.minimize=size"), "setting 'decompose.minimize'"),
        (("--set", "goal.max_params=0"), "setting 'goal.max_params'"),
        (("--set", "decompose.policy=greedy"), "'knapsack', 'threshold' or 'vbmf'"),
    ],
)
def test_goals_that_cannot_be_meant(
    decompose: Run, flags: tuple[object, ...], message: str
) -> None:
    code, said = decompose(*flags)
    assert code == 2
    assert message in said
