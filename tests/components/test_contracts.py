"""What the folders of the components promise beside their code."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from kfp import components

from components.generate import COMPONENTS, folder_of, readme, write_yaml
from components.step import StepLine, read_line

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", COMPONENTS)
def test_the_readme_is_current(stage: str) -> None:
    written = (folder_of(stage) / "README.md").read_text(encoding="utf-8")
    assert written == readme(stage), "run `python -m components.generate`"


@pytest.mark.parametrize("stage", COMPONENTS)
def test_every_input_and_output_is_described(stage: str) -> None:
    rows = [line for line in readme(stage).splitlines() if line.startswith("| `")]
    assert rows
    assert all(row.split("|")[3].strip() for row in rows)


@pytest.mark.parametrize("stage", COMPONENTS)
def test_the_metadata_names_the_component_and_what_it_needs(stage: str) -> None:
    metadata = yaml.safe_load((folder_of(stage) / "metadata.yaml").read_text(encoding="utf-8"))
    assert metadata["name"] == stage
    assert metadata["stability"] in ("alpha", "beta", "stable")
    assert metadata["dependencies"]["kubeflow"][0]["name"] == "Pipelines"


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_yaml_is_current_and_loads(name: str, tmp_path: Path) -> None:
    committed = folder_of(name) / "component.yaml"
    write_yaml(name, tmp_path / "component.yaml")
    assert committed.read_text() == (tmp_path / "component.yaml").read_text(), (
        "run `python -m components.generate`"
    )
    loaded = components.load_component_from_file(str(committed))
    assert loaded.component_spec.implementation.container.image.startswith("lrf:")


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    default = (ROOT / "components" / "image.py").read_text()
    assert f'"lrf:{version}"' in default


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("[lrf explore] Calibrating: 3 of 9", StepLine("explore", "Calibrating: 3 of 9")),
        ("   [lrf analyze] done in 1.0 s\n", StepLine("analyze", "done in 1.0 s")),
        (
            "[lrf decompose] failed, exit code 2: no plan: none",
            StepLine("decompose", "no plan: none", 2),
        ),
        ("[KFP Executor INFO]: Looking for component", None),
        ("ValueError: [lrf explore] is not at the start", None),
    ],
)
def test_a_line_of_a_component_is_told_from_others(line: str, meant: StepLine | None) -> None:
    assert read_line(line) == meant
