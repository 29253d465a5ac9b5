"""The object store is killed as each stage begins: one clear line, and the next run completes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from seaweed import SECRET_KEY, SeaweedProcess
from tiny import Trained

from lrf_core.commands import app as cli
from lrf_core.releases import list_releases, verify_version
from lrf_core.run import workflow
from lrf_core.storage import open_store

# What each reads or writes in the store: inputs are fetched, scores and checkpoints are written
# while a stage runs, the release at the end.
STAGES = ("load_model", "open_data", "analyze", "explore", "finetune", "validate_all", "publish")
# A cache that cannot be reached is a warning and costs time only; these cannot go on without.
NEEDS_THE_STORE = {"load_model", "open_data", "publish"}


@pytest.fixture
def mortal(
    own_seaweed: SeaweedProcess, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> SeaweedProcess:
    """A server to kill, whose address and keys are in the environment; no request is retried."""
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    for name, value in own_seaweed.server.environment().items():
        monkeypatch.setenv(name, value)
    return own_seaweed


def run_lrf(
    *arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit code and standard error of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err


def killing(stage: Callable[..., Any], server: SeaweedProcess) -> Callable[..., Any]:
    """The stage, with the server killed just before it begins."""

    def run(*arguments: Any, **settings: Any) -> Any:
        server.kill()
        return stage(*arguments, **settings)

    return run


@pytest.mark.slow
def test_a_store_that_dies_in_a_stage_loses_nothing(
    mortal: SeaweedProcess,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, stage in enumerate(STAGES):
        prefix = f"s3://{mortal.server.bucket}/run{number}"
        store = open_store(prefix)
        store.put_file("tiny.keras", trained.model_file)
        store.put_file("tiny.npz", trained.data_file)
        monkeypatch.setenv("LRF_CACHE", str(tmp_path / f"fetched{number}"))
        spec = tmp_path / f"spec{number}.yaml"
        spec.write_text(
            json.dumps(
                {
                    "model": f"{prefix}/tiny.keras",
                    "data": f"{prefix}/tiny.npz",
                    "out": str(tmp_path / f"out{number}"),
                    "goal": {"params_reduction": 0.3},
                    "explore": {"samples": 64, "ranks_per_mode": 4, "cache": f"{prefix}/cache"},
                    "finetune": {"epochs": 1, "checkpoint_seconds": 0},
                    "gate": {"max_accuracy_drop": 50},
                    "publish": {"to": f"{prefix}/releases", "name": "tiny"},
                }
            )
        )
        with monkeypatch.context() as patch:
            room = workflow if stage in ("load_model", "open_data") else workflow.stages
            patch.setattr(room, stage, killing(getattr(room, stage), mortal))
            code, err = run_lrf("compress", "--spec", spec, monkeypatch=monkeypatch, capsys=capsys)
        # Every run ends at the release; a stage that only caches goes on without its cache.
        assert code == 1, (stage, err)
        errors = [line for line in err.splitlines() if line.startswith("lrf: ")]
        assert len(errors) == 1, (stage, err)
        assert "LRF_S3_ENDPOINT" in errors[0], (stage, err)
        assert "Traceback" not in err, stage
        assert SECRET_KEY not in err, stage
        if stage in NEEDS_THE_STORE - {"publish"}:
            assert not (tmp_path / f"out{number}" / "plan.json").exists(), stage

        mortal.start()
        code, err = run_lrf("compress", "--spec", spec, monkeypatch=monkeypatch, capsys=capsys)
        assert code == 0, (stage, err)
        releases = open_store(f"{prefix}/releases")
        [listed] = list_releases(releases, "tiny")
        assert verify_version(releases, "tiny", listed.number) == [], stage
        assert {key.split("/")[1] for key in releases.list("tiny/")} == {
            listed.version,
            "index.json",
        }
