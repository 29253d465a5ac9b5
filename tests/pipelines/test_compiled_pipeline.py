"""The compiled pipeline that lies in the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.generate import STAGES

COMMITTED = Path(__file__).parents[2] / "pipelines" / "compress.yaml"


def compiled(folder: Path, **environment: str) -> str:
    """Compile in a process of its own, somewhere else than in the repository."""
    inherited = {name: value for name, value in os.environ.items() if name != "LRF_IMAGE"}
    subprocess.run(
        [sys.executable, "-m", "pipelines", "compile", "lrf.yaml"],
        cwd=folder,
        env={**inherited, **environment},
        check=True,
        capture_output=True,
    )
    return (folder / "lrf.yaml").read_text(encoding="utf-8")


def test_the_compiled_pipeline_is_current(tmp_path: Path) -> None:
    committed = COMMITTED.read_text(encoding="utf-8")
    assert committed == compiled(tmp_path), "run `python -m pipelines compile`"


def test_it_holds_no_path_of_this_machine() -> None:
    text = COMMITTED.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.:/$\"])/(?:home|root|work|tmp|usr|opt|Users)/\S*", text)


def test_the_image_can_be_named(tmp_path: Path) -> None:
    text = compiled(tmp_path, LRF_IMAGE="registry.example/team/lrf:1.2.3")
    images = re.findall(r"image: (\S+)", text)
    assert images == ["registry.example/team/lrf:1.2.3"] * len(STAGES)


@pytest.fixture(scope="module")
def tasks() -> dict[str, dict[str, object]]:
    pipeline = next(iter(yaml.safe_load_all(COMMITTED.read_text(encoding="utf-8"))))
    found = dict(pipeline["root"]["dag"]["tasks"])
    for component in pipeline["components"].values():
        found.update(component.get("dag", {}).get("tasks", {}))
    return found


def test_publish_depends_on_the_verdict(tasks: dict[str, dict[str, object]]) -> None:
    conditions = [task["triggerPolicy"] for task in tasks.values() if "triggerPolicy" in task]
    assert len(conditions) == 1
    assert "validate-Output'] ==" in str(conditions[0])


def test_a_spec_can_be_compiled_in(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("model: m\ndata: d\ncluster: {image: lrf@sha256:0a}\n")
    command = [sys.executable, "-m", "pipelines", "compile", "lrf.yaml", "--spec", "spec.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "lrf.yaml").read_text(encoding="utf-8")
    assert re.findall(r"image: (\S+)", text) == ["lrf@sha256:0a"] * len(STAGES)


def test_no_step_is_cached_where_the_content_may_not_be_known(
    tasks: dict[str, dict[str, object]],
) -> None:
    assert all(tasks[stage]["cachingOptions"] == {} for stage in STAGES)


def test_all_plans_come_to_one_gate(tasks: dict[str, dict[str, object]]) -> None:
    loops = [name for name, task in tasks.items() if "parameterIterator" in task]
    assert len(loops) == 2
    inputs = str(tasks["validate"]["inputs"])
    assert inputs.count(f"'producerTask': '{loops[1]}'") == 3
