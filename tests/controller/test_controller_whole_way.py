"""`lrf controller --local`: a trained model is dropped into a bucket, and a release comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from processes import REAL, Controller, wait_for
from seaweed import SECRET_KEY, Seaweed
from tiny import tiny_cnn, tiny_data, train_tiny

from lrf_core.models.load import save_model
from lrf_core.releases import resolve, verify_version
from lrf_core.storage import open_store

PLACE = "s3://releases/whole-way"


@pytest.mark.slow
def test_a_model_dropped_into_the_bucket_is_released(s3_settings: Seaweed, tmp_path: Path) -> None:
    data = tiny_data()
    save_model(train_tiny(tiny_cnn(), data), tmp_path / "tiny.keras")
    arrays = {}
    for name in ("train", "test"):
        arrays[f"x_{name}"], arrays[f"y_{name}"] = getattr(data, name).arrays()
    np.savez(tmp_path / "data.npz", **arrays)
    spec = {
        "data": str(tmp_path / "data.npz"),
        "goal": {"params_reduction": 0.2},
        "explore": {"samples": 64, "ranks_per_mode": 4},
        "finetune": {"epochs": 1},
        "gate": {"max_accuracy_drop": 60.0, "latency_repeats": 3},
        "publish": {"to": f"{PLACE}/compressed"},
    }
    settings = {
        "state": f"{PLACE}/state",
        "sources": [{"uri": f"{PLACE}/incoming", "spec": "small"}],
    }
    controller = Controller(
        tmp_path,
        settings,
        {"small": spec},
        s3_settings.environment(),
        REAL,
        ["--local", str(tmp_path / "runs")],
    )
    incoming = open_store(f"{PLACE}/incoming")
    keys = ("team/tiny.keras", "team/same.keras")
    told = [f"{key}.lrf.json" for key in keys]
    for key in keys:
        incoming.put_file(key, tmp_path / "tiny.keras")
    try:
        controller.start()
        done = {"waiting": 0, "running": 0, "published": 1, "refused": 0, "failed": 0}
        wait_for(lambda: controller.requests() == done, controller.log, within_s=900)
        wait_for(lambda: {*told} <= {*incoming.list()}, controller.log)
        wait_for(
            lambda: all(json.loads(incoming.get(key))["state"] == "published" for key in told),
            controller.log,
        )
        metrics = controller.metrics()
        assert controller.stop() == 0
    finally:
        controller.kill()

    first, same = (json.loads(incoming.get(key)) for key in told)
    assert first == same
    listed = resolve(open_store(f"{PLACE}/compressed"), "tiny", "latest")
    assert verify_version(open_store(f"{PLACE}/compressed"), "tiny", 1) == []
    assert (listed.number, listed.release.location) == (1, first["release"])
    assert first["metrics"]["params_after"] == listed.release.summary.params_after
    assert Path(first["report"]).is_file()
    source = f"{PLACE}/incoming"
    assert metrics["lrf_controller_runs_started_total", source] == 1
    assert metrics["lrf_controller_runs_finished_total", "published", source] == 1
    assert metrics["lrf_controller_run_duration_seconds_count",] == 1
    assert SECRET_KEY not in controller.log_file.read_text()
