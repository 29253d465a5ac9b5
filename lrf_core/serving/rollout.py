"""Moves a service to a release, checks it at every step, and takes it back where it fails."""

from __future__ import annotations

import logging
import time

from lrf_core.console import progress
from lrf_core.errors import PromotionError
from lrf_core.releases.answers import SampleAnswers
from lrf_core.serving.answers import (
    NoAnswerError,
    Protocol,
    WrongAnswerError,
    compare,
    server_at,
)
from lrf_core.serving.journal import Journal
from lrf_core.serving.plan import (
    JSON,
    ROLLBACK,
    PromotionPlan,
    patched,
    rollback_of,
    traffic_patch,
    with_rollback,
)
from lrf_core.serving.prometheus import Metric, QueryError
from lrf_core.serving.service import InferenceService, is_applied
from lrf_core.serving.state import ServiceState, state_of
from lrf_core.serving.waiting import NotReadyError, Wait, until_off, until_ready
from lrf_core.spec.promote import PromoteSpec

_logger = logging.getLogger("lrf")


class Rollout:
    """One promotion of one service.

    Attributes:
        current: the service as the last write left it.
        touched: whether there may be something to roll back.
    """

    def __init__(
        self,
        service: InferenceService,
        current: JSON,
        plan: PromotionPlan,
        recorded: SampleAnswers,
        settings: PromoteSpec,
        journal: Journal,
    ) -> None:
        self.current = current
        self._service, self._plan, self._recorded = service, plan, recorded
        self._settings, self._journal = settings, journal
        self._wait = Wait(settings.wait, settings.poll)
        self.touched = self._applied = plan.resumed
        self._pending: JSON | None = None

    def run(self) -> None:
        """Patch, then step by step: wait, check the answers, watch.

        Raises:
            ChangedMeanwhileError: someone else changed the service, which is left as it is.
            PromotionError, LrfError: it is not to be promoted; `roll_back` is up to the caller.
        """
        before = None if self._plan.resumed else self._apply()
        if not self._plan.canary:
            state = self._ready(before, 100)
            self._check_answers(state, self._plain_url(state), 100)
            self._watch(100, state)
            return
        if not self._plan.resumed or state_of(self.current).percent == 0:
            state = self._ready(before, 0)
            self._check_answers(state, self._own_url(state), 0)
        for percent in self._plan.steps:
            self._move(percent)
            state = self._ready(None, percent)
            whole = percent == 100
            url = self._plain_url(state) if whole else self._own_url(state)
            self._check_answers(state, url, percent)
            self._watch(percent, state)

    def verify(self) -> None:
        """Check what is served already, and change nothing. Raises as `run` does."""
        state = self._ready(None, 100)
        self._check_answers(state, self._plain_url(state), 100)

    def _apply(self) -> ServiceState:
        with self._journal.step("patch") as note:
            preview = self._service.preview(self._plan.patch)
            patch = with_rollback(self._plan.patch, self.current, preview)
            before = state_of(self.current)
            self._write(patch)
            note.detail = (
                f"{before.storage_uri or 'nothing'} > {state_of(self.current).storage_uri}"
            )
        return before

    def _move(self, percent: int) -> None:
        with self._journal.step(f"move to {percent}%"):
            share = self._plan.final if percent == 100 else percent
            self._write(traffic_patch(share))

    def _ready(self, before: ServiceState | None, percent: int) -> ServiceState:
        with self._journal.step(f"ready at {percent}%") as note:
            state = until_ready(self._service, self.current, before, percent, self._wait)
            note.detail = state.created
        return state

    def _own_url(self, state: ServiceState) -> str:
        latest = state.latest()
        if latest is None or latest.url is None:
            raise PromotionError(
                "KServe gives the new revision no address of its own (tag routing), so its answers "
                "cannot be checked before it gets traffic; use KServe 0.8 or later"
            )
        return latest.url

    def _plain_url(self, state: ServiceState) -> str:
        if state.url is None:
            raise PromotionError("KServe gives the service no address (status.url)")
        return state.url

    def _check_answers(self, state: ServiceState, url: str, percent: int) -> None:
        settings, count = self._settings, self._recorded.count
        model = settings.model_name or self._service.name
        server = server_at(url, settings.url, model, protocol_of(self.current))
        # With an address of its own nobody but the new revision can answer.
        old_may_answer = percent == 100
        with self._journal.step(f"answers at {percent}%") as note:
            deadline = time.monotonic() + settings.settle
            while True:
                try:
                    found = server.answers(self._recorded.inputs)
                    apart = compare(self._recorded, found, settings.tolerance)
                    break
                except NoAnswerError:
                    if time.monotonic() > deadline:
                        raise
                except WrongAnswerError:
                    if not old_may_answer or time.monotonic() > deadline:
                        raise
                time.sleep(settings.poll)
            note.detail = f"{count} samples, {apart:.2g} apart"

    def _watch(self, percent: int, state: ServiceState) -> None:
        settings, metric = self._settings, self._metric(state)
        soak = settings.effective_soak()
        if metric is None and soak == 0:
            return
        with self._journal.step(f"watch at {percent}%") as note:
            found = self._soak(percent, soak, metric)
            if metric and found is None and metric.settings.no_data == "fail":
                raise QueryError(f"the query gave no values at {percent}% of the traffic")
            note.detail = found or ("no values" if metric else f"ready for {soak:g} s")

    def _soak(self, percent: int, soak: float, metric: Metric | None) -> str | None:
        """Look again and again; returns what the metric said last."""
        begun, shown, lapses = time.monotonic(), 0, 0
        with progress.work(f"Watching at {percent}%", max(1, int(soak))) as advance:
            while True:
                fresh = self._service.get()
                self._service.unchanged_since(self.current, fresh)
                found = metric.check() if metric else None
                past, state = time.monotonic() - begun, state_of(fresh)
                # A moment of it is no failure: KServe is not ready while it changes anything.
                lapses = 0 if state.ready else lapses + 1
                if lapses == 2 or (lapses and past >= soak):
                    raise NotReadyError(f"the service is not ready any more: {state.waiting_for}")
                advance(int(min(past, soak)) - shown)
                shown = int(min(past, soak))
                if past >= soak:
                    return found
                time.sleep(min(soak - past, self._settings.interval))

    def _metric(self, state: ServiceState) -> Metric | None:
        settings = self._settings.prometheus
        if settings is None:
            return None
        return metric_for(self._settings, state.created)

    def roll_back(self) -> None:
        """Restore what the service was before, never sending traffic to the release meanwhile.

        First the traffic goes back to the revision that was rolled out before, at once; then the
        old spec is written, still without traffic for what it starts, since until that is ready
        the newest ready revision is the one that failed; and the traffic setting comes last.

        Raises:
            ChangedMeanwhileError: someone else changed the service, which is left as it is.
            PromotionError, ClusterError: what could not be restored.
        """
        if not self.touched:
            return
        self._find_own_write()
        if not self._applied:
            return  # a record that is there is that of an earlier promotion
        state, undo = state_of(self.current), rollback_of(self.current)
        if state.mode == "serverless" and state.rolled_out:
            self._take_off_traffic(state)
            self._restore_without_traffic(undo)
        with self._journal.step("restore"):
            before = state_of(self.current)
            self._write(undo)
        percent = state_of(self.current).percent
        with self._journal.step("restored") as note:
            restored = until_ready(
                self._service,
                self.current,
                # Here the traffic shows that KServe has acted; whether another annotation makes
                # another revision is up to its configuration.
                None if before.mode == "serverless" else before,
                100 if percent is None else percent,
                self._wait,
            )
            note.detail = restored.storage_uri or ""

    def _write(self, patch: JSON) -> None:
        self.touched, self._pending = True, patch
        self.current = self._service.patch(self.current, patch)
        self._applied, self._pending = True, None

    def _find_own_write(self) -> None:
        """Take over the service as it is, unless someone else changed it.

        A write may have been done although its answer never came.
        """
        fresh = self._service.get()
        if self._pending is not None and is_applied(fresh, self._pending):
            self._applied = True
        else:
            self._service.unchanged_since(self.current, fresh)
        self.current = fresh

    def _take_off_traffic(self, state: ServiceState) -> None:
        with self._journal.step("take off traffic") as note:
            self._write(traffic_patch(0))
            try:
                off = until_off(self._service, self.current, state.created, self._wait)
                note.detail = ", ".join(
                    f"{t.percent}% {t.revision}" for t in off.traffic if t.percent
                )
            except NotReadyError as error:
                # The old spec takes it off in the end, too.
                note.detail = f"not confirmed: {error}"
                _logger.warning("taking traffic off is not confirmed: %s", error)

    def _restore_without_traffic(self, undo: JSON) -> None:
        with self._journal.step("restore without traffic") as note:
            before = state_of(self.current)
            # The record stays until all is restored, for a run after one that was killed here.
            record = self.current["metadata"]["annotations"][ROLLBACK]
            kept = {"metadata": {"annotations": {ROLLBACK: record}}}
            held = patched(patched(undo, kept), traffic_patch(0))
            earlier = self.current["metadata"]["generation"]
            self._write(held)
            changed = self.current["metadata"]["generation"] != earlier
            state = until_ready(
                self._service, self.current, before if changed else None, 0, self._wait
            )
            note.detail = state.created


def protocol_of(service: JSON) -> Protocol:
    """The inference protocol that a service's spec names. Raises PromotionError."""
    named = service["spec"]["predictor"]["model"].get("protocolVersion", "v1")
    if named == "v2":
        return "v2"
    if named == "v1":
        return "v1"
    raise PromotionError(
        f"the service speaks protocol {named}, by which no answers can be checked; give --protocol "
        "v1 or v2"
    )


def metric_for(settings: PromoteSpec, revision: str) -> Metric:
    """The query of a promotion, with its names filled in."""
    if settings.prometheus is None:
        raise PromotionError("no query to ask; set prometheus")
    namespace, _, name = settings.service.partition("/")
    names = {"namespace": namespace, "service": name, "revision": revision}
    return Metric(settings.prometheus, names)
