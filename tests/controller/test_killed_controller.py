"""20 models; the controller is killed 10 times, the object store twice: none lost, none doubled."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Controller, wait_for
from seaweed import SeaweedProcess

from lrf_core.errors import StorageError
from lrf_core.releases import list_releases, read_index, resolve, verify_version
from lrf_core.storage import open_store
from pipelines.controller.request_store import RequestStore

MODELS, KILLS, STORE_KILLS = 20, 10, (3, 7)
SPEC = {"data": "d.npz", "publish": {"to": "s3://releases/compressed", "name": "fleet"}}


@pytest.fixture
def controller(
    own_seaweed: SeaweedProcess,
    no_s3_settings: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Controller]:
    environment = {**own_seaweed.server.environment(), "LRF_S3_RETRY_S": "5"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = {
        "state": "s3://releases/state",
        "sources": [{"uri": "s3://releases/incoming", "spec": "small"}],
        "parallel": 2,
        # Runs die with the object store, and that is no fault of theirs.
        "attempts": 20,
        "backoff": "500ms",
    }
    running = Controller(
        tmp_path, settings, {"small": SPEC}, environment, arguments=[str(tmp_path / "runs")]
    )
    yield running
    running.kill()


@pytest.mark.slow
def test_every_model_is_released_once_whatever_is_killed(
    own_seaweed: SeaweedProcess, controller: Controller, tmp_path: Path
) -> None:
    dice = random.Random(20)
    incoming = open_store("s3://releases/incoming")

    def drop() -> None:
        for number in range(MODELS):
            put_until_there(f"model-{number}.keras", b"model %d" % number)
            time.sleep(0.3)

    def put_until_there(key: str, content: bytes) -> None:
        while True:
            try:
                incoming.put(key, content)
            except StorageError:
                time.sleep(0.2)
            else:
                return

    dropping = threading.Thread(target=drop)
    dropping.start()
    for kill in range(KILLS):
        controller.start()
        if kill in STORE_KILLS:
            own_seaweed.kill()
            time.sleep(dice.uniform(0, 1))
            controller.kill()
            own_seaweed.start()
        else:
            time.sleep(dice.uniform(0, 2))
            controller.kill()
    dropping.join()
    controller.start()
    wait_for(lambda: controller.requests().get("published") == MODELS, controller.log)
    counted, metrics = controller.requests(), controller.metrics()
    told = [f"model-{number}.keras.lrf.json" for number in range(MODELS)]
    wait_for(lambda: {*told} <= {*incoming.list()}, controller.log)
    wait_for(lambda: not {*open_store("s3://releases/state").list("models/")}, controller.log)
    assert controller.ask("/readyz") == 200
    assert controller.stop() == 0

    releases = open_store("s3://releases/compressed")
    index = read_index(releases, "fleet")
    assert index is not None
    assert len(index.versions) == MODELS
    assert all(verify_version(releases, "fleet", number + 1) == [] for number in range(MODELS))
    lines = list_releases(releases, "fleet")
    found = [resolve(releases, "fleet", line.number).release for line in lines]
    listed = {each.version: each for each in found}
    assert len({release.model_digest for release in listed.values()}) == MODELS
    requests = RequestStore(open_store("s3://releases/state")).requests()
    assert len(requests) == MODELS
    results = [held.request.result for held in requests.values()]
    assert {result.version for result in results if result} == set(listed)
    outcomes = [json.loads(incoming.get(key)) for key in told]
    assert {outcome["release"] for outcome in outcomes} == {
        release.location for release in listed.values()
    }
    assert {outcome["state"] for outcome in outcomes} == {"published"}
    assert counted == {"waiting": 0, "running": 0, "published": MODELS, "refused": 0, "failed": 0}
    assert metrics["lrf_controller_leader",] == 1
    attempts = {held.request.address[:24]: held.request.attempts for held in requests.values()}
    for address, made in attempts.items():
        ran = (tmp_path / "runs" / address / "out" / "runs").read_text().split()
        # Each attempt ran once, one after the other.
        assert ran == [str(number + 1) for number in range(made)]
