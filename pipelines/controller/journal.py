"""Events of the controller: a log line for each, and the metrics at /metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from lrf_core.errors import ArtifactError, LrfError
from lrf_core.redaction import one_line
from pipelines.controller.engine import RunEnd
from pipelines.controller.request import STATES, Note, Request

_RUN_BUCKETS_S = (10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)


class Metrics:
    """The metrics, in a registry of their own.

    Attributes:
        registry: what /metrics shows.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.runs_started = Counter(
            "lrf_controller_runs_started",
            "Runs that this process started",
            ["source"],
            registry=self.registry,
        )
        self.runs_finished = Counter(
            "lrf_controller_runs_finished",
            "Runs that this process saw end",
            ["source", "outcome"],
            registry=self.registry,
        )
        self.run_duration = Histogram(
            "lrf_controller_run_duration_seconds",
            "From the start of a run to the moment it was seen to have ended",
            buckets=_RUN_BUCKETS_S,
            registry=self.registry,
        )
        self.errors = Counter(
            "lrf_controller_errors",
            "Errors of sources, engine and state store, by class",
            ["source", "cause"],
            registry=self.registry,
        )
        self.last_poll = Gauge(
            "lrf_controller_last_poll_timestamp_seconds",
            "When a source was last read without an error",
            ["source"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "lrf_controller_leader", "Whether this process may work", registry=self.registry
        )
        self._requests = _Requests(tuple(sources))
        self.registry.register(self._requests)
        for source in sources:
            # From 0, so that `increase` sees the first.
            self.runs_started.labels(source)
            for outcome in ("published", "refused", "failed", "retried"):
                self.runs_finished.labels(source, outcome)

    def show(self, requests: Iterable[Request], notes: Iterable[Note]) -> None:
        """Show these requests from now on; models that cannot become one count as failed."""
        self._requests.requests = tuple(requests)
        self._requests.unusable = tuple(note for note in notes if note.address is None)


class _Requests:
    """Counted when they are read, so that no reader sees half of a change."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self.sources = sources
        self.requests: tuple[Request, ...] = ()
        self.unusable: tuple[Note, ...] = ()

    def collect(self) -> Iterator[Metric]:
        counts = Tally({(source, state): 0 for source in self.sources for state in STATES})
        counts.update((each.source, each.state) for each in self.requests)
        counts.update((note.source, "failed") for note in self.unusable)
        family = GaugeMetricFamily(
            "lrf_controller_requests", "Requests in the state store", labels=["source", "state"]
        )
        for (source, state), count in sorted(counts.items()):
            family.add_metric([source, state], count)
        yield family
        waiting = [each.created.timestamp() for each in self.requests if each.state == "waiting"]
        yield GaugeMetricFamily(
            "lrf_controller_oldest_waiting_seconds",
            "Age of the oldest request that waits; 0 without one",
            value=max(time.time() - min(waiting), 0.0) if waiting else 0.0,
        )
        running = GaugeMetricFamily(
            "lrf_controller_run_start_timestamp_seconds",
            "When each run that goes on was started",
            labels=["source", "request"],
        )
        for each in self.requests:
            if each.state == "running":
                running.add_metric([each.source, each.address[:12]], each.since.timestamp())
        yield running


logger = logging.getLogger("lrf")


class Journal:
    """Logs what happens; an error that lasts is one line, and one more when it is over."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._lasting: dict[str, str] = {}

    def accepted(self, request: Request) -> None:
        """A new request was written."""
        logger.info("%s: new request %s", request.source, request)

    def unusable(self, source: str, reference: str, problem: str) -> None:
        """A model cannot be compressed as its source wants."""
        logger.warning("%s: %s cannot be compressed: %s", source, reference, problem)

    def started(self, request: Request) -> None:
        """A run was started, or found to be started, and noted."""
        self.metrics.runs_started.labels(request.source).inc()
        logger.info("%s runs as %s (attempt %d)", request, request.run_id, request.attempts)

    def not_started(self, request: Request, error: LrfError) -> None:
        """A run could not be started, and its request waits again."""
        self.metrics.errors.labels(request.source, type(error).__name__).inc()
        logger.warning("%s could not be started: %s", request, error)

    def ended(self, before: Request, after: Request, end: RunEnd) -> None:
        """A run has ended, and what its request became."""
        outcome = "retried" if after.state == "waiting" else after.state
        self.metrics.runs_finished.labels(after.source, outcome).inc()
        taken = max((after.since - before.since).total_seconds(), 0.0)
        self.metrics.run_duration.observe(taken)
        if after.state == "published":
            where = end.result.release if end.result else None
            logger.info("%s is published after %.0f s: %s", after, taken, where or "see its run")
        elif after.state == "waiting":
            logger.warning(
                "%s failed after %.0f s, attempt %d; tried again not before %s: %s",
                after,
                taken,
                after.attempts,
                after.not_before and after.not_before.isoformat(timespec="seconds"),
                after.reason,
            )
        else:
            logger.warning("%s is %s after %.0f s: %s", after, after.state, taken, after.reason)

    def polled(self, source: str) -> None:
        """A source was read without an error."""
        self.metrics.last_poll.labels(source).set(time.time())

    def damaged(self, key: str, reason: str) -> None:
        """An object of the state store cannot be read."""
        with self.log_and_continue("state", key):
            raise ArtifactError(reason)

    @contextmanager
    def log_and_continue(self, source: str, what: str) -> Iterator[None]:
        """Count and log an error in place of raising it: others go on.

        Args:
            source: the label of the error.
            what: was being done; the same error in it again is not logged again.
        """
        try:
            yield
        except LrfError as error:
            self._failed(source, what, error, str(error))
        except Exception as error:
            logger.debug("unexpected", exc_info=True)
            line = f"unexpected {type(error).__name__}: {one_line(error)}"
            self._failed(source, what, error, line)
        else:
            if self._lasting.pop(what, None) is not None:
                logger.info("%s: works again", what)

    def _failed(self, source: str, what: str, error: Exception, line: str) -> None:
        self.metrics.errors.labels(source, type(error).__name__).inc()
        if self._lasting.get(what) != line:
            self._lasting[what] = line
            logger.warning("%s: %s", what, line)
