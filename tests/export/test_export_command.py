"""`lrf export` on files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import Trained

from lrf_core.commands import app as cli
from lrf_core.export import FORMATS, closeness, open_exported
from lrf_core.models.load import save_model

Lrf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lrf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lrf:
    """Run `lrf export` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lrf", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_is_written_and_compared(
    to: str, trained: Trained, lrf: Lrf, tmp_path: Path
) -> None:
    target = tmp_path / "export"
    code, out, err = lrf(
        trained.model_file, "--to", to, "--data", trained.data_file, "--out", target, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["samples"] == 128
    assert told["samples_from"] == f"test samples of {trained.data_file}"
    assert told["largest_difference"] < 0.1
    assert told["same_class_percent"] > 90
    files = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
    assert told["bytes"] == sum(file.stat().st_size for file in files)
    samples, _ = trained.data.test.arrays()
    assert closeness(trained.model, open_exported(target), samples).largest_difference < 0.1


def test_what_a_person_reads(trained: Trained, lrf: Lrf, tmp_path: Path) -> None:
    target = tmp_path / "export.tflite"
    code, out, err = lrf(trained.model_file, "--to", "litert", "--samples", 9, "--out", target)
    assert code == 0, err
    assert "LiteRT, float32" in out
    assert "9 samples of random numbers" in out
    assert f"{target.stat().st_size:,} bytes" in out
    assert "of the largest answer" in out
    assert str(target) in out


def test_several_inputs_without_data(lrf: Lrf, tmp_path: Path) -> None:
    inputs = {name: keras.Input((4,), name=name) for name in ("right", "left")}
    joined = keras.layers.Concatenate()([inputs["right"], inputs["left"]])
    model = keras.Model(inputs, {"side": keras.layers.Dense(3)(joined)})
    save_model(model, tmp_path / "model.keras")
    for to in ("litert", "onnx", "saved-model"):
        code, out, err = lrf(tmp_path / "model.keras", "--to", to, "--out", tmp_path / to, "--json")
        assert code == 0, err
        assert json.loads(out)["largest_difference"] < 1e-5


def test_bad_input_is_one_line_and_leaves_nothing(
    trained: Trained, lrf: Lrf, tmp_path: Path
) -> None:
    target = tmp_path / "export"
    np.savez(tmp_path / "other.npz", x=np.zeros((40, 5, 5, 3)), y=np.arange(40) % 4)
    cases = {
        "MODEL is missing": ["--to", "litert", "--out", target],
        "--to is missing": [trained.model_file, "--out", target],
        "--out is missing": [trained.model_file, "--to", "litert"],
        "did you mean 'litert'": [trained.model_file, "--to", "lite", "--out", target],
        "calibrate": [trained.model_file, "--to", "litert-int8", "--out", target],
        "no model at": [tmp_path / "none.keras", "--to", "litert", "--out", target],
        "shape": [
            *(trained.model_file, "--to", "litert", "--out", target),
            *("--data", tmp_path / "other.npz"),
        ],
        "cannot write": [
            *(trained.model_file, "--to", "litert", "--out", trained.model_file / "below")
        ],
    }
    for words, arguments in cases.items():
        code, out, err = lrf(*arguments)
        assert (code, out) == (2, ""), err
        lines = [line for line in err.splitlines() if line.startswith("lrf: ")]
        assert len(lines) == 1, err
        assert words in lines[0]
        assert not target.exists()


def test_a_model_that_cannot_be_converted_ends_with_1(lrf: Lrf, tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.erfinv(keras.layers.Dense(2)(inputs)), name="odd")
    save_model(model, tmp_path / "model.keras")
    code, _, err = lrf(tmp_path / "model.keras", "--to", "onnx", "--out", tmp_path / "export")
    assert code == 1
    assert "ONNX cannot express model 'odd'" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
