"""Turn by turn: read the sources, move the requests, report to the sources."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lrf_core import telemetry
from pipelines.controller.intake import Intake
from pipelines.controller.journal import Journal
from pipelines.controller.reconcile import Reconciler
from pipelines.controller.request import Note, Outcome
from pipelines.controller.request_store import RequestStore, Versioned
from pipelines.controller.sources import Source

# A turn may download large models, and wait for a server that starts again.
_STUCK_S = 900.0
# A pushgateway keeps what jobs pushed until told to forget: after a week, looked at each hour.
_METRICS_KEPT_S, _LOOKED_AT_EACH_S = 7 * 86400.0, 3600.0


class Leader(Protocol):
    """Whether this process may work."""

    def is_leader(self) -> bool:
        """Whether it may right now."""


class Alone:
    """Without an election: compare-and-swap alone decides between controllers."""

    def is_leader(self) -> bool:
        """Always."""
        return True


@dataclass
class Loop:
    """Does turns until it is stopped; every one starts from what is stored.

    Attributes:
        poll_s: between two turns.
    """

    ledger: RequestStore
    sources: Sequence[Source]
    intake: Intake
    reconciler: Reconciler
    journal: Journal
    leader: Leader
    poll_s: float
    monotonic: Callable[[], float] = time.monotonic
    stopping: threading.Event = field(default_factory=threading.Event)
    _beat: float = 0.0
    _looked: float = float("-inf")
    _problem: str | None = "no turn was finished yet"

    def __post_init__(self) -> None:
        self._beat = self.monotonic()

    def may_work(self) -> bool:
        """Whether it leads and is not stopping; also notes that the loop is alive."""
        self._beat = self.monotonic()
        return self.leader.is_leader() and not self.stopping.is_set()

    def run(self) -> None:
        """Turn after turn, until `stopping` is set."""
        while not self.stopping.is_set():
            began = self.monotonic()
            self.turn()
            self.stopping.wait(max(self.poll_s - (self.monotonic() - began), 0.01))

    def turn(self) -> None:
        """One turn; whatever fails in it is logged, counted and tried again in the next one."""
        leads = self.may_work()
        self.journal.metrics.leader.set(leads)
        done = False
        with self.journal.log_and_continue("state", f"state store {self.ledger.store.url()}"):
            if leads:
                self._work()
            else:
                self.ledger.store.check()
                self.journal.metrics.show((), ())
            done = True
        self._problem = None if done else "the last turn failed; the log says why"

    def health(self) -> str | None:
        """Why it must be restarted."""
        still = self.monotonic() - self._beat
        return f"nothing happened for {still:.0f} s" if still > _STUCK_S + self.poll_s else None

    def readiness(self) -> str | None:
        """Why it can do nothing now. Standing by is ready."""
        return self._problem

    def _work(self) -> None:
        requests, notes = self.ledger.requests(), self.ledger.notes()
        self._report_damage()
        for source in self.sources:
            with self.journal.log_and_continue(source.uri, source.uri):
                self._take_in(source, notes, requests)
                self.journal.polled(source.uri)
        self.reconciler.step(requests)
        requests = self.ledger.requests()
        self._show(requests, notes)
        self._tell(requests, notes)
        self.ledger.drop_models(requests)
        self._forget_metrics()

    def _take_in(
        self, source: Source, notes: dict[str, Note], requests: dict[str, Versioned]
    ) -> None:
        for incoming in source.incoming():
            if not self.may_work():
                return
            with self.journal.log_and_continue(source.uri, f"{source.uri}: {incoming.reference}"):
                self.intake.take(source, incoming, notes, requests)

    def _tell(self, requests: dict[str, Versioned], notes: dict[str, Note]) -> None:
        sources = {source.uri: source for source in self.sources}
        for note in notes.values():
            held = requests.get(note.address) if note.address else None
            source = sources.get(note.source)
            if source is None or (note.address and held is None) or not self.may_work():
                continue
            outcome = Outcome(note, held.request if held else None)
            if outcome.report_key == note.last_reported:
                continue
            with self.journal.log_and_continue(
                note.source, f"telling {note.source}: {note.reference}"
            ):
                source.report(outcome)
                self.ledger.put_note(note.model_copy(update={"last_reported": outcome.report_key}))

    def _show(self, requests: dict[str, Versioned], notes: dict[str, Note]) -> None:
        known = [held.request for held in requests.values()]
        uris = {source.uri for source in self.sources}
        self.journal.metrics.show(known, [note for note in notes.values() if note.source in uris])

    def _forget_metrics(self) -> None:
        if self.monotonic() - self._looked < _LOOKED_AT_EACH_S:
            return
        self._looked = self.monotonic()
        with self.journal.log_and_continue("pushgateway", "forgetting old metrics"):
            telemetry.forget_old(_METRICS_KEPT_S)

    def _report_damage(self) -> None:
        for key, reason in self.ledger.damaged.items():
            self.journal.damaged(key, reason)
