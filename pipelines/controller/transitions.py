"""How a request moves from state to state, and which are to move now: no clock, no effects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.controller.engine import RunEnd
from pipelines.controller.request import Request

# No wait between attempts is longer, unless `backoff` itself is.
_LONGEST_BACKOFF_S = 3600.0


@dataclass(frozen=True)
class Limits:
    """How many runs at once, how many attempts for each request, and the first wait in seconds."""

    parallel: int
    attempts: int
    backoff_s: float

    def wait_s(self, attempts: int, chance: float) -> float:
        """Before the next attempt: doubled each time, with jitter of a half.

        Args:
            attempts: made so far.
            chance: 0 to 1, at random.
        """
        longest = max(_LONGEST_BACKOFF_S, self.backoff_s)
        doubled = min(self.backoff_s * 2.0 ** min(max(attempts - 1, 0), 60), longest)
        return doubled * (0.5 + chance)

    def longest_wait_s(self) -> float:
        """No `wait_s` is longer."""
        return 1.5 * max(_LONGEST_BACKOFF_S, self.backoff_s)


def to_start(requests: Iterable[Request], limits: Limits, now: datetime) -> list[Request]:
    """The waiting requests to start now: the oldest that are due, as many as may run."""
    found = list(requests)
    free = limits.parallel - sum(request.state == "running" for request in found)
    due = [each for each in found if each.state == "waiting" and _is_due(each, limits, now)]
    return sorted(due, key=lambda each: (each.created, each.address))[: max(free, 0)]


def _is_due(request: Request, limits: Limits, now: datetime) -> bool:
    if request.not_before is None or now >= request.not_before:
        return True
    # Longer than any wait: the clock was set back since.
    return request.not_before - now > timedelta(seconds=limits.longest_wait_s())


def claimed(request: Request, claim: str, now: datetime) -> Request:
    """A waiting request that this controller is about to start a run for."""
    return _changed(
        request,
        state="running",
        since=now,
        attempts=request.attempts + 1,
        claim=claim,
        run_id=None,
        not_before=None,
        reason="",
    )


def taken_over(request: Request, claim: str) -> Request:
    """A claimed request whose controller may have died before it noted a run."""
    return _changed(request, claim=claim)


def started(request: Request, run_id: str) -> Request:
    """A claimed request whose run was started."""
    return _changed(request, run_id=run_id)


def returned(
    request: Request, reason: str, limits: Limits, now: datetime, chance: float
) -> Request:
    """A claimed request whose run could not be started: the attempt does not count.

    It may have been started, and the answer got lost: the next try has the same name and finds it.
    """
    wait = timedelta(seconds=limits.wait_s(request.attempts, chance))
    return _changed(
        request,
        state="waiting",
        since=now,
        attempts=request.attempts - 1,
        claim=None,
        not_before=now + wait,
        reason=reason,
    )


def ended(request: Request, end: RunEnd, limits: Limits, now: datetime, chance: float) -> Request:
    """A running request whose run has ended: final, or waiting for another attempt."""
    if end.outcome in ("published", "refused"):
        return _changed(request, state=end.outcome, since=now, reason=end.reason, result=end.result)
    if end.outcome == "bad_input":
        return _changed(request, state="failed", since=now, reason=end.reason, result=end.result)
    if request.attempts >= limits.attempts:
        reason = f"given up after {request.attempts} attempts: {end.reason}"
        return _changed(request, state="failed", since=now, reason=reason, result=end.result)
    wait = timedelta(seconds=limits.wait_s(request.attempts, chance))
    return _changed(
        request,
        state="waiting",
        since=now,
        claim=None,
        run_id=None,
        not_before=now + wait,
        reason=end.reason,
        result=end.result,
    )


def _changed(request: Request, **changes: object) -> Request:
    return Request.model_validate({**dict(request), **changes})
