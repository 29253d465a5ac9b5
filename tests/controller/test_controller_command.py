"""`lrf controller` as a process: what it refuses, what it serves, and how it ends."""

from __future__ import annotations

import subprocess
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from processes import REAL, ROOT, Controller, free_port
from typer.testing import CliRunner

from lrf_core.commands import app as cli
from lrf_core.errors import LrfError

SPEC = {"data": "d.npz", "publish": {"to": "file:///srv/releases"}}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "state": (tmp_path / "state").as_uri(),
        "sources": [{"uri": (tmp_path / "incoming").as_uri(), "spec": "small"}],
    }


def refusal(folder: Path, content: dict[str, Any], *arguments: str) -> str:
    """Run until it ends by itself; its only line."""
    (folder / "specs").mkdir()
    (folder / "specs" / "small.yaml").write_text(yaml.safe_dump(SPEC))
    config = folder / "controller.yaml"
    config.write_text(yaml.safe_dump({"specs": str(folder / "specs"), **content}))
    ended = subprocess.run(
        [*REAL, str(config), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    [line] = ended.stderr.splitlines()
    return line


def test_without_pipelines_it_must_run_here(settings: dict[str, Any], tmp_path: Path) -> None:
    assert "run here with --local DIR" in refusal(tmp_path, settings)


def test_runs_on_a_cluster_cannot_read_a_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    line = refusal(tmp_path, {**settings, "pipelines": {"host": "http://kfp:8888"}})
    assert "which runs on a cluster cannot read" in line


def test_a_port_that_is_taken_is_one_line(settings: dict[str, Any], tmp_path: Path) -> None:
    line = refusal(tmp_path, {**settings, "listen": "192.0.2.1:80"}, "--local", str(tmp_path))
    assert "cannot listen at 192.0.2.1:80" in line


def test_it_serves_and_stops_when_told_to_with_its_store_gone(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    gone = {"LRF_S3_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    settings["state"] = "s3://bucket/state"
    controller = Controller(
        tmp_path,
        settings,
        {"small": SPEC},
        {**gone, **keys, "LRF_S3_RETRY_S": "600"},
        REAL,
        ["--local", str(tmp_path / "runs")],
    )
    try:
        controller.start()
        assert controller.ask("/readyz") == 503
        assert controller.ask("/nothing") == 404
        assert controller.metrics()["lrf_controller_oldest_waiting_seconds",] == 0
        # In the midst of a wait of ten minutes for the store.
        assert controller.stop() == 0
        assert "runs go on" in controller.log()
    finally:
        controller.kill()


def test_the_command_is_offered_by_lrf() -> None:
    names = [each.name for each in cli.app.registered_commands]
    assert "controller" in names
    assert "pipeline" in [each.name for each in cli.app.registered_groups]


def test_a_command_that_cannot_be_loaded_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    monkeypatch.setattr(cli, "app", app)
    point = EntryPoint("broken", "no_such_package.module:function", "lrf.commands")
    good = EntryPoint("good", "os:getcwd", "lrf.commands")
    cli.add_commands([point, good])
    assert [each.name for each in app.registered_commands] == ["broken", "good"]
    ended = CliRunner().invoke(app, ["broken"])
    assert isinstance(ended.exception, LrfError)
    assert "'broken' cannot be loaded from no_such_package.module:function" in str(ended.exception)
    assert "\n" not in str(ended.exception)
