"""What the controller says of itself at /metrics."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

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
    """Counted when they are asked for, so that no reader sees half of a change."""

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
