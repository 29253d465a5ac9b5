"""Two controllers without a Lease that crash and overtake each other between any two steps."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledgers import NOW, Runs, journal, released, request

from lrf_core.errors import StorageError
from lrf_core.storage import Store, open_store
from pipelines.controller.engine import RunEnd
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request import FINAL
from pipelines.controller.request_store import RequestStore
from pipelines.controller.transitions import Limits

ATTEMPTS = 2


class Killed(BaseException):
    """The process ends here."""


class Interrupted:
    """A store that calls `before` ahead of each operation."""

    def __init__(self, store: Store, world: World) -> None:
        self.store, self.world = store, world

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)
        if name == "url":
            return operation

        def interrupted(*arguments: Any) -> Any:
            self.world.tick()
            return operation(*arguments)

        return interrupted


class World:
    """What outlives controllers: the store, the runs, the clock; and the fault to come."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="lrf-crashes-")
        self.store = open_store(str(Path(self.folder.name) / "state"))
        self.runs = Runs(before=self.tick)
        self.now: datetime = NOW
        self.fault: tuple[int, Any] | None = None
        self.names = 0

    def tick(self) -> None:
        if self.fault is None:
            return
        left, fault = self.fault
        self.fault = (left - 1, fault) if left else None
        if not left:
            fault()

    def controller(self) -> Reconciler:
        self.names += 1
        return Reconciler(
            RequestStore(Interrupted(self.store, self)),  # type: ignore[arg-type]
            self.runs,
            Limits(parallel=2, attempts=ATTEMPTS, backoff_s=10.0),
            journal(),
            f"controller-{self.names}",
            now=lambda: self.now,
            monotonic=lambda: self.now.timestamp(),
            chance=lambda: 0.5,
        )


class Crashes(RuleBasedStateMachine):
    """Steps with a crash, an error, or a whole step of the other controller in their midst."""

    @initialize(requests=st.integers(1, 4), settle=st.sampled_from([0.0, 30.0]))
    def begin(self, requests: int, settle: float) -> None:
        self.world = World()
        self.world.runs.takeover_delay_s = settle
        self.controllers = [self.world.controller(), self.world.controller()]
        self.ledger = RequestStore(self.world.store)
        self.addresses = {request(number).address for number in range(requests)}
        for number in range(requests):
            assert self.ledger.add(request(number))
        self.final: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.fault = None
            self.settle_down()
            self.world.folder.cleanup()

    def step(self, which: int) -> None:
        controller = self.controllers[which]
        try:
            controller.step(controller.ledger.requests())
        except Killed:
            self.controllers[which] = self.world.controller()
        except StorageError:
            pass  # the next step goes on

    @rule(which=st.integers(0, 1))
    def undisturbed(self, which: int) -> None:
        self.step(which)

    @rule(which=st.integers(0, 1), after=st.integers(0, 25))
    def killed(self, which: int, after: int) -> None:
        def die() -> None:
            raise Killed

        self.world.fault = (after, die)
        self.step(which)
        self.world.fault = None

    @rule(which=st.integers(0, 1), after=st.integers(0, 25))
    def failing(self, which: int, after: int) -> None:
        def fail() -> None:
            raise StorageError("the server is gone")

        self.world.fault = (after, fail)
        self.step(which)
        self.world.fault = None

    @rule(
        which=st.integers(0, 1),
        after=st.integers(0, 25),
        outcome=st.sampled_from(["published", "failed"]),
    )
    def overtaken(self, which: int, after: int, outcome: Any) -> None:
        """In the midst of a step the other one begins runs, and sees them end."""

        def whole_runs() -> None:
            self.step(1 - which)
            self.a_run_ends_everywhere(outcome)
            self.step(1 - which)
            self.nothing_is_lost_or_done_twice()

        self.world.fault = (after, whole_runs)
        self.step(which)
        self.world.fault = None

    @rule(seconds=st.sampled_from([1, 40, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule(
        chosen=st.integers(0, 100),
        outcome=st.sampled_from(["published", "refused", "bad_input", "failed"]),
    )
    def a_run_ends(self, chosen: int, outcome: Any) -> None:
        going = [name for name, end in self.world.runs.ends.items() if end is None]
        if going:
            name = going[chosen % len(going)]
            result = released(name) if outcome == "published" else None
            self.world.runs.ends[name] = RunEnd(outcome, outcome, result)

    def a_run_ends_everywhere(self, outcome: Any) -> None:
        for name, end in self.world.runs.ends.items():
            if end is None:
                result = released(name) if outcome == "published" else None
                self.world.runs.ends[name] = RunEnd(outcome, outcome, result)

    @invariant()
    def nothing_is_lost_or_done_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        held = RequestStore(self.world.store).requests()  # a ledger remembers what is final
        assert set(held) == self.addresses
        for address, state in self.final.items():
            assert held[address].request.state == state
        self.final = {at: each.request.state for at, each in held.items() if each.request.is_final}
        for address in self.addresses:
            names = [name for name in self.world.runs.started if address[:24] in name]
            ends = [self.world.runs.ends[name] for name in names]
            # Another run only after one that failed in passing.
            assert all(end and end.outcome == "failed" for end in ends[:-1])
            assert len(names) <= ATTEMPTS
            assert names == sorted(names)
            if held[address].request.state in FINAL:
                assert ends
                assert ends[-1]

    def settle_down(self) -> None:
        """Without any fault all requests come to an end."""
        for _ in range(12 * len(self.addresses)):
            self.world.now += timedelta(seconds=60)
            for name, end in self.world.runs.ends.items():
                if end is None:
                    self.world.runs.ends[name] = RunEnd("published", result=released(name))
            self.step(0)
        assert all(
            held.request.is_final for held in RequestStore(self.world.store).requests().values()
        )
        self.nothing_is_lost_or_done_twice()


Crashes.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=15,
    suppress_health_check=list(HealthCheck),
)
TestCrashes = Crashes.TestCase
