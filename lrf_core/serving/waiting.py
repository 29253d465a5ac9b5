"""Waits until KServe has made true what a spec asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from lrf_core.console import progress
from lrf_core.errors import PromotionError
from lrf_core.serving.plan import JSON
from lrf_core.serving.service import InferenceService
from lrf_core.serving.state import ServiceState, state_of

_logger = logging.getLogger("lrf")


class NotReadyError(PromotionError):
    """The service did not become ready, in time or at all."""


@dataclass(frozen=True)
class Wait:
    """How to wait.

    Attributes:
        seconds: at most.
        poll: seconds between two looks.
    """

    seconds: float
    poll: float


def until_ready(
    service: InferenceService, written: JSON, before: ServiceState | None, percent: int, wait: Wait
) -> ServiceState:
    """Wait until the newest revision is ready and has this share of the traffic.

    Args:
        written: the service as the last patch left it.
        before: the state before a patch that makes a new revision; None if the last patch
            made none.
        percent: of the traffic, for the newest revision.

    Raises:
        NotReadyError: it failed to load, which is said at once, or was not ready in time.
        ChangedMeanwhileError: someone else changed the spec.
        ClusterError: the API does not answer.
    """
    failures = 0

    def arrived(state: ServiceState) -> bool:
        nonlocal failures
        failure = _new_failure(state, before)
        # KServe says so for a moment too where a pod is just being replaced.
        failures = failures + 1 if failure else 0
        if failures == 2:
            raise NotReadyError(f"the model cannot be loaded: {failure}")
        return _is_ready(state, before, percent)

    return _until(service, written, arrived, f"Waiting for {percent}%", wait)


def until_off(service: InferenceService, written: JSON, revision: str, wait: Wait) -> ServiceState:
    """Wait until a revision has no traffic. Raises as `until_ready` does."""

    def off(state: ServiceState) -> bool:
        latest = state.latest()
        shares = sum(target.percent for target in state.traffic if target.revision == revision)
        return latest is not None and latest.percent == 0 and shares == 0

    return _until(service, written, off, "Taking traffic off", wait)


def _until(
    service: InferenceService,
    written: JSON,
    arrived: Callable[[ServiceState], bool],
    what: str,
    wait: Wait,
) -> ServiceState:
    started, said = time.monotonic(), ""
    with progress.work(what, max(1, int(wait.seconds))) as advance:
        shown = 0
        while True:
            fresh = service.get()
            service.unchanged_since(written, fresh)
            state = state_of(fresh)
            if arrived(state):
                return state
            if state.waiting_for != said:
                said = state.waiting_for
                _logger.info("%s/%s: %s", service.namespace, service.name, said or "changing")
            waited = time.monotonic() - started
            if waited > wait.seconds:
                raise NotReadyError(
                    f"the service was not ready within {wait.seconds:g} s; KServe says: "
                    f"{state.failure or said or 'nothing'}"
                )
            advance(int(waited) - shown)
            shown = int(waited)
            time.sleep(wait.poll)


def _is_ready(state: ServiceState, before: ServiceState | None, percent: int) -> bool:
    if not state.ready or not _seen(state, before):
        return False
    if state.mode != "serverless":
        return True
    latest = state.latest()
    return (
        state.ready_revision == state.created
        and latest is not None
        and latest.revision == state.created
        and latest.percent == percent
        # A status from before the patch shows the old revision, alone.
        and (percent == 100 or state.created != state.rolled_out)
    )


def _seen(state: ServiceState, before: ServiceState | None) -> bool:
    """Whether the controller has acted on the patch.

    Its observedGeneration is that of the object below, so it says only that something changed.
    """
    if before is None:
        return True
    if state.mode == "serverless":
        return state.created not in ("", before.created)
    return state.observed != before.observed


def _new_failure(state: ServiceState, before: ServiceState | None) -> str:
    """A failure that is not left over from before the patch."""
    if before is not None and state.failure == before.failure and not _seen(state, before):
        return ""
    return state.failure
