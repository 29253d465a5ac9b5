"""What a controller serves by the table in docs/metrics.md: for rules and panels that ask of it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


def busy_controller() -> CollectorRegistry:
    """The metrics of a leader with one source, in every state."""
    registry = CollectorRegistry()
    source = "s3://incoming"

    def gauge(name: str, *labels: str) -> Gauge:
        return Gauge(name, "As in docs/metrics.md.", labels, registry=registry)

    def counter(name: str, *labels: str) -> Counter:
        return Counter(name, "As in docs/metrics.md.", labels, registry=registry)

    requests = gauge("lrf_controller_requests", "source", "state")
    for state in ("waiting", "running", "published", "refused", "failed"):
        requests.labels(source, state).set(1)
    counter("lrf_controller_runs_started_total", "source").labels(source).inc()
    finished = counter("lrf_controller_runs_finished_total", "source", "outcome")
    for outcome in ("published", "refused", "failed", "retried"):
        finished.labels(source, outcome).inc()
    Histogram(
        "lrf_controller_run_duration_seconds", "As in docs/metrics.md.", registry=registry
    ).observe(60.0)
    started = gauge("lrf_controller_run_start_timestamp_seconds", "source", "request")
    started.labels(source, "1a2b").set(time.time() - 60)
    counter("lrf_controller_errors_total", "source", "cause").labels(source, "RegistryError").inc()
    gauge("lrf_controller_last_poll_timestamp_seconds", "source").labels(source).set(time.time())
    gauge("lrf_controller_leader").set(1)
    gauge("lrf_controller_oldest_waiting_seconds").set(60)
    return registry
