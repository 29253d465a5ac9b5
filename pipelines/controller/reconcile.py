"""One step towards the state that is wanted: note the runs that ended, start those that are due.

Every change of a request is a compare-and-swap, so of several controllers one makes it. A run is
claimed before it is started and noted after, and is found by its name in between: whoever dies or
is late at any moment, no request has two runs at a time, and none is forgotten.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lrf_core.errors import DataError, GoalError, LrfError, ModelError, SpecError
from pipelines.controller import transitions
from pipelines.controller.engine import Engine, RunEnd, RunRequest
from pipelines.controller.journal import Journal
from pipelines.controller.request import Request
from pipelines.controller.request_store import RequestStore, Versioned
from pipelines.controller.transitions import Limits

# What would be refused again.
_HOPELESS = (SpecError, ModelError, DataError, GoalError)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Reconciler:
    """Moves requests on.

    Attributes:
        claim: names this controller.
        may_work: whether it still may; called before every action.
    """

    ledger: RequestStore
    engine: Engine
    limits: Limits
    journal: Journal
    claim: str
    may_work: Callable[[], bool] = lambda: True
    now: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    # Claims of others: the tag of their requests, and since when we see it.
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def step(self, requests: dict[str, Versioned]) -> None:
        """Look after every run, and start as many as may be.

        Args:
            requests: as they were just read, by address.

        Raises:
            StorageError: the state store cannot be used; the next step goes on from there.
        """
        current = {at: held.request for at, held in requests.items()}
        for address, held in requests.items():
            if held.request.state == "running" and self.may_work():
                current[address] = self._look_after(held)
        for request in transitions.to_start(current.values(), self.limits, self.now()):
            # What was just put back is left for the next step: its tag is another one now.
            held = requests[request.address]
            if held.request == request and self.may_work():
                self._begin(held)

    def _look_after(self, held: Versioned) -> Request:
        request = held.request
        if request.run_id is None:
            return self._take_over(held)
        end: RunEnd | None = None
        with self.journal.log_and_continue(request.source, f"run {request.run_id}"):
            end = self.engine.poll(request.run_id)
        return self._finish(held, end) if end else request

    def _finish(self, held: Versioned, end: RunEnd) -> Request:
        after = transitions.ended(held.request, end, self.limits, self.now(), self.chance())
        swapped = self._swap(held, after)
        if swapped is None:
            return held.request
        self.journal.ended(held.request, after, end)
        return after

    def _take_over(self, held: Versioned) -> Request:
        request = held.request
        if request.claim != self.claim:
            if not self._stands_still(held):
                return request
            swapped = self._swap(held, transitions.taken_over(request, self.claim))
            if swapped is None:
                return request
            held = swapped
        return self._start(held)

    def _stands_still(self, held: Versioned) -> bool:
        """By our own clock, as clocks of two machines cannot be compared."""
        tag, since = self._seen.get(held.request.address, ("", 0.0))
        if tag != held.tag:
            since = self.monotonic()
            self._seen[held.request.address] = (held.tag, since)
        return self.monotonic() - since >= self.engine.takeover_delay_s

    def _begin(self, held: Versioned) -> None:
        claimed = transitions.claimed(held.request, self.claim, self.now())
        swapped = self._swap(held, claimed)
        if swapped is not None:
            self._start(swapped)

    def _start(self, held: Versioned) -> Request:
        request = held.request
        self._seen.pop(request.address, None)
        if not self.may_work():
            return request
        try:
            run_id = self.engine.start(
                RunRequest(request.address, request.attempts, request.settings)
            )
        except _HOPELESS as error:
            return self._finish(held, RunEnd("bad_input", str(error)))
        except LrfError as error:
            after = transitions.returned(
                request, str(error), self.limits, self.now(), self.chance()
            )
            if self._swap(held, after):
                self.journal.not_started(after, error)
            return after
        after = transitions.started(request, run_id)
        if self._swap(held, after):
            self.journal.started(after)
        return after

    def _swap(self, held: Versioned, after: Request) -> Versioned | None:
        """Write what the request becomes; None if another controller was faster."""
        self.ledger.replace(held, after)
        # Read in any case: an answer that got lost may look as if another one had written.
        found = self.ledger.request(after.address)
        return found if found and found.request == after else None
