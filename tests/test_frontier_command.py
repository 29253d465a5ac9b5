"""`lrf frontier` shows plans that `lrf decompose` would make, without the model or the data."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Trained

import lrf_core as lrf
from lrf_core.commands import app as cli
from lrf_core.report.chart import curve_chart, write_svg
from lrf_core.run.outputs import Outputs

SETTINGS = lrf.ExploreSpec(methods=("tucker", "svd", "cp"), samples=64, ranks_per_mode=8)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def explored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    outputs = Outputs(tmp_path_factory.mktemp("explored"))
    analysis = lrf.analyze(trained.model, trained.data, settings=SETTINGS)
    analysis.save(outputs.analysis)
    space = lrf.explore(trained.model, trained.data, analysis, settings=SETTINGS)
    space.save(outputs.design_space)
    return outputs


@pytest.fixture
def frontier(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lrf", "frontier", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        caught = capsys.readouterr()
        return int(ended.value.code or 0), caught.out, caught.err

    return run


@pytest.mark.parametrize("against", ["params", "macs", "bytes"])
def test_every_point_is_what_decompose_would_choose(
    trained: Trained, explored: Outputs, frontier: Run, against: str
) -> None:
    code, out, err = frontier(
        "--out", explored.folder, "--against", against, "--points", 7, "--json"
    )
    assert code == 0, err
    points = json.loads(out)["points"]
    assert len(points) > 3
    sizes, losses = ([point[name] for point in points] for name in (against, "sensitivity"))
    assert sizes == sorted(set(sizes))
    assert losses == sorted(set(losses), reverse=True)
    assert points[-1]["kept"] <= 1.0
    middle = points[len(points) // 2]
    setting = {"params": "max_params", "macs": "max_macs", "bytes": "max_weight_bytes"}[against]
    plan, _ = lrf.decompose(
        trained.model,
        trained.data,
        [lrf.DesignSpace.load(explored.design_space)],
        lrf.Goal(**{setting: int(middle[against])}),
        settings=lrf.DecomposeSpec(refit=False),
    )
    assert plan.predicted_loss == pytest.approx(middle["sensitivity"])
    assert {c.layer: list(c.ranks) for c in plan.replaced()} == {
        layer: chosen["ranks"] for layer, chosen in middle["layers"].items()
    }


def test_the_table_and_the_drawing_show_every_point(explored: Outputs, frontier: Run) -> None:
    code, out, err = frontier("--out", explored.folder, "--points", 9)
    assert code == 0, err
    assert str(explored.frontier) in out.replace("\n", "")
    drawing = ET.fromstring(explored.frontier.read_text())  # noqa: S314
    circles = drawing.findall(".//{*}circle")
    rows = [line for line in out.splitlines() if "%" in line]
    assert len(rows) >= len(circles) > 3
    width, height = map(float, drawing.attrib["viewBox"].split()[2:])
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height


def test_what_it_cannot_show_is_said(
    trained: Trained, explored: Outputs, frontier: Run, tmp_path: Path
) -> None:
    for arguments, message in (
        (("--out", explored.folder, "--against", "latency"), "`lrf profile`"),
        (("--out", explored.folder, "--against", "time"), "--against time: give one of params"),
        (("--out", explored.folder, "--minimize", "params"), "give one of sensitivity, error"),
        (("--out", tmp_path), "cannot read Analysis"),
    ):
        code, _, err = frontier(*arguments)
        assert code == 2
        assert message in err
    other = lrf.Analysis.load(explored.analysis).model_copy(update={"model_digest": "0" * 64})
    other.save(tmp_path / "analysis.json")
    space = lrf.DesignSpace.load(explored.design_space)
    space.save(tmp_path / "design_space.parquet")
    code, _, err = frontier("--out", tmp_path)
    assert (code, "analyze and explore one model" in err) == (2, True)
    lrf.Analysis.load(explored.analysis).save(tmp_path / "analysis.json")
    space.model_copy(update={"candidates": ()}).save(tmp_path / "design_space.parquet")
    code, _, err = frontier("--out", tmp_path)
    assert (code, "there is no frontier to show" in err) == (2, True)


def test_heights_of_many_sizes_are_drawn_by_powers_of_ten(tmp_path: Path) -> None:
    points = [(10.0, 3.0, "far"), (50.0, 0.02, "middle"), (90.0, 1e-4, "near"), (100.0, 0.0, "all")]
    chart = curve_chart("a <model>", "kept, %", points)
    heights = [dot.y for dot in chart.lines[0].dots]
    assert heights == sorted(heights)
    assert [dot.label for dot in chart.lines[0].dots] == ["far", "middle", "near"]
    assert [tick.label for tick in chart.y_ticks] == ["10", "1", "0.1", "0.01", "0.001", "0.0001"]
    linear = curve_chart("m", "kept, %", [(10.0, 3.0, "far"), (100.0, 1.0, "near")])
    assert [tick.label for tick in linear.y_ticks] == ["3", "2.5", "2", "1.5", "1"]
    from_zero = curve_chart("m", "layers", [(5.0, 300.0, "a"), (9.0, 1.0, "b")], from_zero=True)
    assert (from_zero.x_ticks[0].label, from_zero.y_ticks[-1].label) == ("0", "0")
    drawing = ET.fromstring(write_svg(tmp_path / "f.svg", chart).read_text())  # noqa: S314
    assert "a <model>" in [text.text for text in drawing.findall(".//{*}text")]
