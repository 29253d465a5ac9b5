"""Requests, and engines in memory, for tests of the controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pipelines.controller.engine import RunEnd, RunRequest
from pipelines.controller.journal import Journal, Metrics
from pipelines.controller.request import Request, Result, address_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = "s3://models/incoming"


def request(number: int = 0, **changes: object) -> Request:
    """A waiting request; the number makes it another model, accepted later."""
    model = f"{number:064x}"
    created = NOW + timedelta(seconds=number)
    made = Request(
        address=address_of(model, {}),
        source=SOURCE,
        asked_as=f"model-{number}.keras",
        spec_name="small",
        settings={"data": "d.npz", "model": f"s3://state/models/{number}.keras"},
        model_digest=model,
        created=created,
        since=created,
    )
    return Request.model_validate({**dict(made), **changes})


def journal() -> Journal:
    return Journal(Metrics([SOURCE]))


def released(address: str) -> Result:
    return Result(release=f"s3://models/out/{address[:8]}", name="tiny", version="v-1")


@dataclass
class Runs:
    """An engine in memory that outlives controllers.

    Attributes:
        ends: how each run ends; None while it goes on. By name.
        started: names in the order in which runs began.
        before: called before each operation, which does not happen if it raises.
    """

    ends: dict[str, RunEnd | None] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    takeover_delay_s: float = 0.0

    def start(self, work: RunRequest) -> str:
        self.before()
        if work.name not in self.ends:
            self.ends[work.name] = None
            self.started.append(work.name)
        self.before()  # the answer may get lost
        return work.name

    def poll(self, run_id: str) -> RunEnd | None:
        self.before()
        return self.ends[run_id]
