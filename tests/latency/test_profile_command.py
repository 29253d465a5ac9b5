"""`lrf profile`, and the commands that use its table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from tiny import Trained

from lrf_core.artifacts import DesignSpace
from lrf_core.commands import app as cli
from lrf_core.latency import LatencyTable
from lrf_core.models.load import save_model

Lrf = Callable[..., tuple[int, str, str]]
FEW = ("--points", "2", "--repeats", "5", "--methods", "svd,tucker")


@pytest.fixture
def lrf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lrf:
    """Run `lrf` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def test_profile_then_explore(
    trained: Trained, lrf: Lrf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "latency.json"
    code, out, err = lrf("profile", trained.model_file, "--out", table, *FEW)
    assert code == 0, err
    assert "one thread" in out
    assert "Conv2D 3x3x8x8 at 16x16" in out
    assert str(table) in out
    code, out, err = lrf("profile", trained.model_file, "--out", table, *FEW, "--json")
    assert code == 0, err
    assert "what it holds is kept" in caplog.text
    told = json.loads(out)
    assert told == LatencyTable.load(table).model_dump(mode="json")
    assert told["threads"] == 1

    given = (trained.model_file, "--data", trained.data_file, "--out", tmp_path / "out")
    code, _, err = lrf("analyze", *given, "--set", "explore.methods=[svd,tucker]")
    assert code == 0, err
    asked = ("--samples", "64", "--methods", "svd,tucker")
    code, _, err = lrf("explore", *given, *asked, "--set", f"explore.latency={table}")
    assert code == 0, err
    space = DesignSpace.load(tmp_path / "out" / "design_space.parquet")
    assert set(space.latency_ms) == set(space.layers)
    assert all(each.latency_ms for each in space.candidates)

    code, _, err = lrf("explore", *given, *asked, "--set", "explore.latency=measure")
    assert code == 0, err
    assert LatencyTable.load(tmp_path / "out" / "latency.json").geometries


@pytest.mark.slow
def test_compress_with_a_table_keeps_what_is_done_until_the_table_changes(
    trained: Trained, lrf: Lrf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "latency.json"
    assert lrf("profile", trained.model_file, "--out", table, *FEW)[0] == 0
    command = (
        *("compress", trained.model_file, "--data", trained.data_file, "--out", tmp_path / "out"),
        *("--set", "explore.methods=[svd,tucker]", "--set", "explore.samples=64", "--epochs", "0"),
        *(
            "--params-reduction",
            "0.3",
            "--max-accuracy-drop",
            "50",
            "--set",
            f"explore.latency={table}",
        ),
    )
    code, _, err = lrf(*command)
    assert code in (0, 3), err
    assert DesignSpace.load(tmp_path / "out" / "design_space.parquet").latency_ms
    lrf(*command)
    assert "explore: loaded" in caplog.text
    caplog.clear()
    content = json.loads(table.read_text())
    content["geometries"][0]["own"]["median_ms"] = 7.5
    table.write_text(json.dumps(content))
    lrf(*command)
    assert "analyze: loaded" in caplog.text
    assert "explore: loaded" not in caplog.text
    assert 7.5 in DesignSpace.load(tmp_path / "out" / "design_space.parquet").latency_ms.values()


def test_bad_input_is_one_line(trained: Trained, lrf: Lrf, tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.json", tmp_path / "other.json"
    damaged.write_text("{")
    inputs = keras.Input((4,))
    small = save_model(keras.Model(inputs, keras.layers.Dense(4)(inputs)), tmp_path / "small.keras")
    assert lrf("profile", small, "--out", other, *FEW)[0] == 0
    inputs = keras.Input((None, None, 4))
    convolution = keras.layers.Conv2D(8, 3)
    open_sizes = save_model(keras.Model(inputs, convolution(inputs)), tmp_path / "open.keras")
    given = (trained.model_file, "--data", trained.data_file, "--out", tmp_path / "out")
    code, _, err = lrf("analyze", *given)
    assert code == 0, err
    explore = ("explore", *given, "--samples", "16", "--set")
    cases = {
        "MODEL is missing": ("profile",),
        "no model at": ("profile", tmp_path / "none.keras"),
        "unknown method 'tuker'": ("profile", small, "--methods", "tuker"),
        "is no LatencyTable": ("profile", small, "--out", damaged),
        "leaves sizes of its input open": ("profile", open_sizes, "--out", tmp_path / "x.json"),
        "no LatencyTable of this version": (*explore, f"explore.latency={damaged}"),
        "cannot read LatencyTable": (*explore, f"explore.latency={tmp_path / 'none.json'}"),
        "no layer like conv0 (Conv2D 3x3x3x8 at 16x16), conv0b": (
            *explore,
            f"explore.latency={other}",
        ),
    }
    for words, arguments in cases.items():
        code, out, err = lrf(*arguments)
        assert (code, out) == (2, ""), err
        lines = [line for line in err.splitlines() if line.startswith("lrf: ")]
        assert len(lines) == 1, err
        assert words in lines[0]
