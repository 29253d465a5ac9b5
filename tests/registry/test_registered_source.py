"""The controller on a model registry: a version that asks is run once, and told its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from registry_case import RegistryCase

from lrf_core.storage import open_store
from pipelines.controller.engine import RunEnd, RunRequest
from pipelines.controller.intake import Intake
from pipelines.controller.journal import Journal, Metrics
from pipelines.controller.loop import Loop
from pipelines.controller.process import Alone
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request import Result
from pipelines.controller.request_store import RequestStore
from pipelines.controller.settings import SourceSettings
from pipelines.controller.sources import open_source
from pipelines.controller.transitions import Limits

SPECS: dict[str, dict[str, Any]] = {"small": {"data": "d.npz", "publish": {"to": "s3://b/out"}}}


@dataclass
class OneTurn:
    """An engine whose runs end in the turn after they were started."""

    started: list[RunRequest] = field(default_factory=list)
    takeover_delay_s: float = 0.0

    def start(self, work: RunRequest) -> str:
        self.started.append(work)
        return work.name

    def poll(self, run_id: str) -> RunEnd:
        result = Result(release="s3://b/out/digits/v-1", metrics={"params_after": 50.0})
        return RunEnd("published", result=result)


@pytest.fixture
def engine() -> OneTurn:
    return OneTurn()


def loop_of(case: RegistryCase, engine: OneTurn, folder: Path) -> Loop:
    source = open_source(SourceSettings(uri=case.uri))
    journal = Journal(Metrics([source.uri]))
    ledger = RequestStore(open_store(str(folder)))
    reconciler = Reconciler(ledger, engine, Limits(2, 3, 60.0), journal, "me")
    return Loop(ledger, [source], Intake(ledger, SPECS, journal), reconciler, journal, Alone(), 1.0)


def test_a_version_in_mlflow(mlflow_case: RegistryCase, engine: OneTurn, tmp_path: Path) -> None:
    address = mlflow_case.uri.removeprefix("mlflow+")
    client = MlflowClient(address, address)
    mlflow_case.store.put("given/digits.keras", b"a model")
    model = mlflow_case.store.url("given/digits.keras")
    client.create_registered_model("Digits of 2026")
    tags = {"lrf.compress": "small"}
    asks = client.create_model_version(
        "Digits of 2026", model, tags=tags, await_creation_for=0
    ).version
    # Others of their kind: without the tag, and one whose files nobody can read from here.
    client.create_model_version("Digits of 2026", model, await_creation_for=0)
    proxied = client.create_model_version(
        "Digits of 2026", "gs://bucket/model.keras", tags=tags, await_creation_for=0
    ).version
    loop = loop_of(mlflow_case, engine, tmp_path)
    for _ in range(3):
        loop.turn()

    [work] = engine.started
    assert work.settings["publish"]["name"] == "digits-of-2026"
    assert Path(work.settings["model"]).suffix == ".keras"
    told = client.get_model_version("Digits of 2026", asks).tags
    assert told["lrf.state"] == "published"
    assert told["lrf.release"] == "s3://b/out/digits/v-1"
    assert float(told["lrf.params_after"]) == 50.0
    assert told["lrf.compress"] == "small"
    refused = client.get_model_version("Digits of 2026", proxied).tags
    assert refused["lrf.state"] == "failed"
    assert "s3://bucket/key" in refused["lrf.reason"]
    # A model that the server keeps for its clients, as it is logged by default.
    (tmp_path / "own.keras").write_bytes(b"another model")
    run = client.create_run(client.create_experiment("training")).info.run_id
    client.log_artifact(run, str(tmp_path / "own.keras"), "model")
    kept = client.create_model_version(
        "Digits of 2026", f"runs:/{run}/model", run, tags=tags, await_creation_for=0
    ).version
    for _ in range(2):
        loop.turn()
    assert client.get_model_version("Digits of 2026", kept).tags["lrf.state"] == "published"
    assert len(engine.started) == 2
    # Named after the fact, and asked for again.
    client.set_model_version_tag("Digits of 2026", proxied, "lrf.model", model)
    for _ in range(2):
        loop.turn()
    assert len(engine.started) == 2  # the same content by the same spec
    assert client.get_model_version("Digits of 2026", proxied).tags["lrf.state"] == "published"
