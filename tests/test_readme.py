"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tiny import Trained

README = Path(__file__).parents[1] / "README.md"


def test_library_example_runs(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    shutil.copy(trained.model_file, tmp_path / "model.keras")
    shutil.copy(trained.data_file, tmp_path / "data.npz")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own README
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "fewer_parameters" in printed


def test_files_that_are_named_exist() -> None:
    text = README.read_text()
    named = set(re.findall(r"\]\((?!http)([^)]+)\)", text))
    named |= set(re.findall(r"`((?:lrf_core|tests|examples|pipelines)/[\w/.]+\.\w+)`", text))
    assert named
    for path in named:
        assert (README.parent / path).exists(), path
