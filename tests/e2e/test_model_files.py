"""Models given to the command line as a config with weights, and as an .h5 file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import Trained
from typer.testing import CliRunner

from lrf_core.artifacts import Analysis
from lrf_core.commands import app as cli
from lrf_core.errors import ModelError
from lrf_core.models.load import model_digest


def analyze(*arguments: object) -> Exception | None:
    """What `lrf analyze` raised, if anything."""
    result = CliRunner().invoke(cli.app, ["analyze", *map(str, arguments)])
    assert result.exit_code == 0 or isinstance(result.exception, ModelError), result.exception
    return result.exception


@pytest.fixture
def files(trained: Trained, tmp_path: Path) -> Path:
    """A folder with the trained model as an .h5 file and as a config with weights."""
    trained.model.save(tmp_path / "model.h5")
    (tmp_path / "model.json").write_text(trained.model.to_json())
    trained.model.save_weights(tmp_path / "model.weights.h5")
    return tmp_path


def test_each_form_gives_the_same_model(trained: Trained, files: Path) -> None:
    digest = model_digest(trained.model)
    config, weights = files / "model.json", files / "model.weights.h5"
    spec = files / "spec.yaml"
    spec.write_text(f"model: {config}\nweights: {weights}\ndata: {trained.data_file}\n")
    for given in (
        [files / "model.h5", "--data", trained.data_file],
        [config, "--weights", weights, "--data", trained.data_file],
        ["--spec", spec],
    ):
        assert analyze(*given, "--out", files / "out") is None
        assert Analysis.load(files / "out" / "analysis.json").model_digest == digest


def test_a_config_needs_weights(trained: Trained, files: Path) -> None:
    data = ["--data", trained.data_file, "--out", files / "out"]
    error = analyze(files / "model.json", *data)
    assert "config without weights; give a weights file as well (--weights" in str(error)
    error = analyze(files / "model.json", "--weights", files / "gone.weights.h5", *data)
    assert "no weights at" in str(error)
    error = analyze(files / "model.weights.h5", *data)
    assert "holds weights, but no model" in str(error)
