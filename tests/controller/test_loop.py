"""Turns of the loop in one process: what asks, what is told, and what fails without harm."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledgers import Runs, released

from lrf_core.errors import LrfError, UnreachableStorageError
from lrf_core.storage import Store, open_store
from pipelines.controller.engine import RunEnd
from pipelines.controller.intake import Intake
from pipelines.controller.journal import Journal, Metrics
from pipelines.controller.loop import Loop
from pipelines.controller.process import Alone
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request import Outcome
from pipelines.controller.request_store import RequestStore
from pipelines.controller.sources import BucketSource, IncomingModel
from pipelines.controller.transitions import Limits

SPECS: dict[str, dict[str, Any]] = {
    "small": {"data": "d.npz", "publish": {"to": "s3://b/out"}},
    "tiny": {"data": "d.npz", "publish": {"to": "s3://b/out", "name": "tiny"}},
}


class DownSource:
    """A source whose server is down."""

    uri = "mlflow+http://gone:5000"

    def incoming(self) -> Iterator[IncomingModel]:
        raise LrfError("cannot reach http://gone:5000")

    def fetches(self, model: str) -> bool:
        return True

    def fetch(self, model: str, folder: Path) -> None:
        raise AssertionError("nothing came from there")

    def report(self, outcome: Outcome) -> None:
        raise AssertionError("nothing came from there")


@dataclass
class Place:
    """A bucket with models, and a controller of one turn at a time."""

    incoming: Store
    state: Store
    runs: Runs
    loop: Loop

    @property
    def ledger(self) -> RequestStore:
        return RequestStore(self.state)

    def told(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.incoming.get(f"{key}.lrf.json"))
        return found

    def end_all(self, outcome: Any = "published", reason: str = "") -> None:
        for name, end in self.runs.ends.items():
            if end is None:
                result = released(name) if outcome == "published" else None
                self.runs.ends[name] = RunEnd(outcome, reason, result)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.loop.journal.metrics.registry.get_sample_value(name, labels)

    def restarted(self) -> Place:
        return place_in(self.incoming, self.state, self.runs)


def place_in(incoming: Store, state: Store, runs: Runs, *more: Any) -> Place:
    sources = [*more, BucketSource(incoming.url(), incoming, "small")]
    journal = Journal(Metrics([source.uri for source in sources]))
    ledger = RequestStore(state)
    reconciler = Reconciler(ledger, runs, Limits(2, 3, 60.0), journal, uuid.uuid4().hex)
    intake = Intake(ledger, SPECS, journal)
    loop = Loop(ledger, sources, intake, reconciler, journal, Alone(), 1.0)
    reconciler.may_work = loop.may_work
    return Place(incoming, state, runs, loop)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    where = tmp_path.as_uri()
    if request.param == "s3":
        server = request.getfixturevalue("s3_settings")
        where = f"s3://{server.bucket}/loop-{uuid.uuid4().hex[:8]}"
    return place_in(open_store(f"{where}/incoming"), open_store(f"{where}/state"), Runs())


@pytest.fixture
def here(tmp_path: Path) -> Place:
    incoming, state = (open_store(str(tmp_path / each)) for each in ("incoming", "state"))
    return place_in(incoming, state, Runs())


def test_a_model_is_run_once_and_told_where_it_stands(place: Place) -> None:
    place.incoming.put("team/a.keras", b"model a")
    place.incoming.put("team/notes.txt", b"no model")
    place.loop.turn()
    [name] = place.runs.started
    assert place.told("team/a.keras")["state"] == "running"
    assert place.sample("lrf_controller_requests", source=place.incoming.url(), state="running")
    [(address, held)] = place.ledger.requests().items()
    kept = held.request.settings["model"]
    assert kept.endswith(f"state/models/{address}.keras")
    place.incoming.delete("team/a.keras")  # its run has a copy
    place.loop.turn()
    assert len(list(place.state.list("models/"))) == 1

    place.end_all()
    place.loop.turn()
    assert place.ledger.requests()[address].request.state == "published"
    outcome = place.told("team/a.keras")
    assert (outcome["state"], outcome["run"]) == ("published", name)
    assert outcome["release"] == f"s3://models/out/{name[:8]}"
    assert list(place.state.list("models/")) == []
    place.restarted().loop.turn()
    assert len(place.runs.started) == 1


def test_one_content_under_two_keys_is_one_request_and_both_are_told(place: Place) -> None:
    place.incoming.put("a.keras", b"model")
    place.incoming.put("b.keras", b"model")
    place.loop.turn()
    place.end_all()
    place.loop.turn()
    assert len(place.runs.started) == 1
    assert place.told("a.keras") == place.told("b.keras")
    place.incoming.put("c.keras", b"model")
    place.loop.turn()
    assert place.told("c.keras") == place.told("a.keras")
    assert len(place.runs.started) == 1
    assert list(place.state.list("models/")) == []


def test_another_model_under_the_same_key_is_another_request(place: Place) -> None:
    place.incoming.put("a.keras", b"first")
    place.loop.turn()
    place.incoming.put("a.keras", b"second")
    place.loop.turn()
    assert len(place.runs.started) == 2
    place.end_all()
    place.loop.turn()
    told = place.told("a.keras")["request"]
    requests = place.ledger.requests()
    newest = max(requests.values(), key=lambda held: held.request.created)
    assert told == newest.request.address


def test_a_file_beside_the_model_names_spec_and_release(here: Place) -> None:
    here.incoming.put("a.keras", b"model")
    here.incoming.put("a.keras.lrf.yaml", b"lrf.compress: tiny\nname: Digits\n")
    here.loop.turn()
    [held] = here.ledger.requests().values()
    assert held.request.spec_name == "tiny"
    assert held.request.settings["publish"]["name"] == "digits"


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        (b"lrf.compress: large\n", "there is no spec 'large'; there are small, tiny"),
        (b"lrf.compress: [1]\n", "must say `lrf.compress: <name of a spec>`"),
        (b"nothing: here\n", "must say"),
        (b"lrf.compress: tiny\nnaem: x\n", "unknown settings: naem"),
        (b"lrf.compress: tiny\nname: 'a b'\n", "release name 'a b' is not usable"),
        (b"a: [", "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
    ],
)
def test_what_cannot_be_done_is_told_and_done_once_it_can(
    here: Place, sidecar: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    here.incoming.put("a.keras", b"model")
    here.incoming.put("a.keras.lrf.yaml", sidecar)
    with caplog.at_level(logging.WARNING, "lrf"):
        for _ in range(3):
            here.loop.turn()
    assert here.runs.started == []
    assert here.told("a.keras")["state"] == "failed"
    assert told in here.told("a.keras")["reason"]
    assert len(caplog.messages) == 1  # not in every turn
    source = here.incoming.url()
    assert here.sample("lrf_controller_requests", source=source, state="failed") == 1
    here.incoming.put("a.keras.lrf.yaml", b"lrf.compress: tiny\n")
    here.loop.turn()
    assert len(here.runs.started) == 1
    assert here.sample("lrf_controller_requests", source=source, state="failed") == 0


def test_a_source_that_is_down_keeps_no_other_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    incoming, state = (open_store(str(tmp_path / each)) for each in ("incoming", "state"))
    place = place_in(incoming, state, Runs(), DownSource())
    incoming.put("a.keras", b"model")
    with caplog.at_level(logging.WARNING, "lrf"):
        place.loop.turn()
        place.loop.turn()
    assert len(place.runs.started) == 1
    assert caplog.messages == ["mlflow+http://gone:5000: cannot reach http://gone:5000"]
    labels = {"source": DownSource.uri, "cause": "LrfError"}
    assert place.sample("lrf_controller_errors_total", **labels) == 2
    assert place.loop.readiness() is None


def test_a_damaged_request_is_left_to_a_person_and_stops_no_other(
    here: Place, caplog: pytest.LogCaptureFixture
) -> None:
    here.incoming.put("a.keras", b"first")
    here.loop.turn()
    [key] = here.state.list("requests/")
    here.state.put(key, b"{}")
    here.incoming.put("b.keras", b"second")
    place = here.restarted()
    with caplog.at_level(logging.WARNING, "lrf"):
        place.loop.turn()
        place.loop.turn()
    assert len(here.runs.started) == 2
    assert sum("is damaged or" in line for line in caplog.messages) == 1
    assert place.sample("lrf_controller_errors_total", source="state", cause="ArtifactError") == 2
    here.state.delete(key)  # asks for it again
    place.loop.turn()
    assert len(here.ledger.requests()) == 2
    assert place.loop.ledger.damaged == {}


def test_a_damaged_note_is_written_anew(here: Place) -> None:
    here.incoming.put("a.keras", b"first")
    here.loop.turn()
    [key] = here.state.list("origins/")
    here.state.put(key, b"{}")
    here.restarted().loop.turn()
    assert len(here.runs.started) == 1
    assert b"a.keras" in here.state.get(key)


def test_a_state_store_that_is_gone_is_not_ready_and_nothing_is_lost(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.incoming.put("a.keras", b"first")
    assert here.loop.readiness() == "no turn was finished yet"

    def gone(self: RequestStore) -> None:
        raise UnreachableStorageError("no connection")

    with monkeypatch.context() as patched:
        patched.setattr(RequestStore, "requests", gone)
        here.loop.turn()
        assert here.loop.readiness() == "the last turn failed; the log says why"
        assert here.loop.health() is None
    here.loop.turn()
    assert here.loop.readiness() is None
    assert len(here.runs.started) == 1


def test_a_client_that_breaks_in_any_way_does_not_end_the_loop(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.incoming.put("a.keras", b"first")

    def broken(self: BucketSource, outcome: Outcome) -> None:
        raise KeyError("what nobody thought of")

    with monkeypatch.context() as patched:
        patched.setattr(BucketSource, "report", broken)
        here.loop.turn()
    source = here.incoming.url()
    assert here.sample("lrf_controller_errors_total", source=source, cause="KeyError") == 1
    here.loop.turn()
    assert here.told("a.keras")["state"] == "running"


def test_a_loop_that_hangs_is_not_healthy(here: Place) -> None:
    assert here.loop.health() is None
    here.loop.monotonic = lambda: here.loop._beat + 1000.0
    assert here.loop.health() == "nothing happened for 1000 s"


def test_told_to_stop_it_starts_nothing_more(here: Place) -> None:
    here.incoming.put("a.keras", b"first")
    here.loop.stopping.set()
    here.loop.turn()
    assert here.runs.started == []


def test_old_metrics_of_jobs_are_forgotten_once_an_hour(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[float] = []
    monkeypatch.setattr("lrf_core.telemetry.forget_old", forgotten.append)
    now = 0.0
    here.loop.monotonic = lambda: now
    here.loop.turn()
    here.loop.turn()
    assert forgotten == [7 * 86400.0]
    now = 3601.0
    here.loop.turn()
    assert len(forgotten) == 2
