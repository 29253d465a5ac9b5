"""Leader election by a Lease: one at a time, whoever dies, hangs or is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from lease_api import LeaseApi, lease_api
from processes import Controller, wait_for

from pipelines.controller.lease import LeaseElection


@dataclass
class Clock:
    """One machine's own."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api() -> Iterator[LeaseApi]:
    with lease_api() as running:
        yield running


def candidate(api: LeaseApi, name: str, clock: Clock, duration_s: float = 15.0) -> LeaseElection:
    return LeaseElection(api.client(), "team", "lrf-controller", name, duration_s, monotonic=clock)


def test_the_first_creates_it_and_keeps_it_by_renewing(api: LeaseApi) -> None:
    here, there = Clock(), Clock(5.0)
    first, second = candidate(api, "first", here), candidate(api, "second", there)
    first.try_once()
    for _ in range(20):
        second.try_once()
        assert (first.is_leader(), second.is_leader()) == (True, False)
        here.now += 5
        there.now += 5
        first.try_once()
    assert api.spec()["holderIdentity"] == "first"
    assert api.spec()["leaseTransitions"] == 0
    assert api.spec()["acquireTime"] < api.spec()["renewTime"]


def test_one_that_died_is_replaced_after_the_whole_duration(api: LeaseApi) -> None:
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    first.try_once()
    second.try_once()
    clock.now += 14.9
    second.try_once()
    assert not second.is_leader()
    assert not first.is_leader()  # it counted itself out before that
    clock.now += 0.2
    second.try_once()
    assert second.is_leader()
    assert api.spec()["holderIdentity"] == "second"
    assert api.spec()["leaseTransitions"] == 1


def test_clocks_of_other_machines_do_not_matter(api: LeaseApi) -> None:
    first = candidate(api, "first", Clock())
    first.try_once()
    lease = api.leases["team/lrf-controller"]
    lease["spec"]["renewTime"] = lease["spec"]["acquireTime"] = "1999-01-01T00:00:00.000000Z"
    lease["metadata"]["resourceVersion"] = "77"
    second = candidate(api, "second", Clock())
    second.try_once()
    assert not second.is_leader()


def test_one_that_cannot_renew_steps_down_by_itself(api: LeaseApi) -> None:
    clock = Clock()
    first = candidate(api, "first", clock)
    first.try_once()
    api.down = True
    clock.now += 9.9
    first.try_once()
    assert first.is_leader()
    clock.now += 0.2
    first.try_once()
    assert not first.is_leader()
    api.down = False
    first.try_once()
    assert first.is_leader()


def test_of_two_that_take_it_at_once_one_gets_it(api: LeaseApi) -> None:
    clock = Clock()
    candidate(api, "gone", clock).try_once()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    for each in (first, second):
        each.try_once()
    clock.now += 16
    seen = second._read()
    first.try_once()
    assert not second._replace(seen, second._spec(seen, holder="second"))
    assert api.spec()["holderIdentity"] == "first"


def test_one_that_leaves_gives_it_back(api: LeaseApi) -> None:
    clock = Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    first.try_once()
    first.leave()
    assert not first.is_leader()
    second.try_once()
    assert second.is_leader()


@pytest.mark.slow
def test_a_standby_takes_over_from_a_controller_that_was_killed(
    api: LeaseApi, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    context = {"cluster": "c", "user": "u", "namespace": "team"}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": api.address}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": context}],
            }
        )
    )
    (tmp_path / "incoming").mkdir()
    settings = {
        "state": (tmp_path / "state").as_uri(),
        "sources": [{"uri": (tmp_path / "incoming").as_uri(), "spec": "small"}],
        "lease": {"name": "lrf-controller", "duration": "3s"},
    }
    spec = {"data": "d.npz", "publish": {"to": (tmp_path / "out").as_uri()}}
    runs = [str(tmp_path / "runs")]
    first, second = (
        Controller(
            tmp_path / name,
            settings,
            {"small": spec},
            {"KUBECONFIG": str(kubeconfig)},
            arguments=runs,
        )
        for name in ("first", "second")
    )

    def leads(controller: Controller) -> bool:
        return controller.metrics()["lrf_controller_leader",] == 1

    try:
        first.start()
        wait_for(lambda: leads(first), first.log)
        second.start()
        wait_for(lambda: second.ask("/readyz") == 200, second.log)
        assert not leads(second)
        first.kill()
        (tmp_path / "incoming" / "a.keras").write_bytes(b"model")
        wait_for(lambda: leads(second), second.log)
        wait_for(lambda: second.requests()["published"] == 1, second.log)
        assert second.stop() == 0
        assert "holderIdentity" not in api.spec()
    finally:
        first.kill()
        second.kill()
