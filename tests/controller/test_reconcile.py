"""What a controller does that is late: nothing."""

from __future__ import annotations

from pathlib import Path

from ledgers import Runs, journal, released, request

from lrf_core.storage import open_store
from pipelines.controller.engine import RunEnd
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request_store import RequestStore
from pipelines.controller.transitions import Limits


def reconciler(ledger: RequestStore, runs: Runs, claim: str) -> Reconciler:
    return Reconciler(ledger, runs, Limits(2, 3, 60.0), journal(), claim)


def test_what_was_read_before_another_controller_finished_is_not_written(tmp_path: Path) -> None:
    ledger, runs = RequestStore(open_store(str(tmp_path))), Runs()
    ledger.add(request())
    late, other = reconciler(ledger, runs, "late"), reconciler(ledger, runs, "other")
    stale = ledger.requests()
    other.step(ledger.requests())
    [name] = runs.started
    runs.ends[name] = RunEnd("published", result=released(name))
    other.step(ledger.requests())
    [finished] = ledger.requests().values()
    assert finished.request.state == "published"
    late.step(stale)
    [found] = RequestStore(open_store(str(tmp_path))).requests().values()
    assert found == finished
    assert runs.started == [name]


def test_of_two_that_claim_the_same_request_one_starts_its_run(tmp_path: Path) -> None:
    ledger, runs = RequestStore(open_store(str(tmp_path))), Runs()
    ledger.add(request())
    read = ledger.requests()
    for claim in ("one", "two"):
        reconciler(ledger, runs, claim).step(read)
    [found] = ledger.requests().values()
    assert (found.request.claim, found.request.attempts) == ("one", 1)
    assert len(runs.started) == 1
