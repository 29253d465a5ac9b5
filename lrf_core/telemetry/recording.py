"""What the rest of lrf calls, a line each: into the metrics of the job that is going on.

There is one set of metrics at a time, in all threads: stages work in thread pools, to which a
context variable would not reach.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from lrf_core.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from lrf_core.artifacts import ModelMeasures, Verdict
import os
import socket

from lrf_core.redaction import shown
from lrf_core.telemetry.pushgateway import push

# Outside of any job: what a long-lived process has done since it started.
_current = Metrics()


def current() -> Metrics:
    """The metrics of the job that is going on; outside of any job, those of the process."""
    return _current


@contextmanager
def fresh() -> Iterator[Metrics]:
    """While open, metrics start from zero; then those from before count on."""
    global _current
    before, _current = _current, Metrics()
    try:
        yield _current
    finally:
        _current = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure a stage; one that runs several times in a job adds up.

    An error that passes through several stages, one in the other, is counted in the innermost.
    """
    metrics, started = current(), time.monotonic()
    try:
        yield
    except Exception as error:
        if not getattr(error, _COUNTED, False):
            metrics.stage_failures.labels(name, type(error).__name__).inc()
            setattr(error, _COUNTED, True)
        raise
    else:
        metrics.stage_success.labels(name).set_to_current_time()
    finally:
        metrics.stage_duration.labels(name).inc(time.monotonic() - started)


_COUNTED = "_counted_by_lrf_telemetry"


def count_scored(method: str, candidates: int) -> None:
    """Candidates of one layer were scored by a method."""
    current().scored.labels(method).inc(candidates)


def count_cached(cache: str, hits: int, misses: int) -> None:
    """Entries were looked up in a cache."""
    for outcome, count in (("hit", hits), ("miss", misses)):
        current().cache_requests.labels(cache, outcome).inc(count)


def count_moved(direction: Literal["up", "down"], size: int) -> None:
    """Bytes of content went to S3 or came from there."""
    current().moved.labels(direction).inc(size)


def count_retry(error: BaseException | None) -> None:
    """A request to S3 failed in passing and is sent again."""
    current().retries.labels(type(error).__name__).inc()


def record_verdict(verdict: Verdict, model: str) -> None:
    """What the gate measured and said of the candidate that was picked.

    Args:
        model: the name that it is, or would be, released under.
    """
    metrics, model = current(), model.lower()
    _record_measures(verdict.baseline, model, "before")
    _record_measures(verdict.candidate, model, "after")
    if verdict.accuracy_drop is not None:
        metrics.accuracy_drop.labels(model).set(verdict.accuracy_drop / 100)
    limit = _drop_limit(verdict)
    if limit is not None:
        metrics.drop_limit.labels(model).set(limit / 100)
    for check in verdict.checks:
        metrics.check_passed.labels(model, check.name).set(check.passed)
    metrics.gate_passed.labels(model).set(verdict.passed)
    metrics.judged.labels(model).set_to_current_time()


def count_release(model: str) -> None:
    """A release was written that was not there before."""
    current().releases.labels(model).inc()


def count_promotion(service: str, outcome: str) -> None:
    """A promotion ended. Args: service: namespace/name of the InferenceService."""
    current().promotions.labels(service, outcome).inc()


def _record_measures(measures: ModelMeasures, model: str, when: str) -> None:
    metrics = current()
    metrics.parameters.labels(model, when).set(measures.cost.params)
    metrics.macs.labels(model, when).set(measures.cost.macs)
    metrics.weight_bytes.labels(model, when).set(measures.weight_bytes)
    if measures.accuracy is not None:
        metrics.accuracy.labels(model, when).set(measures.accuracy / 100)
    latencies = {"keras": measures.keras_latency_ms, "litert": measures.litert_latency_ms}
    for runtime, milliseconds in latencies.items():
        if milliseconds is not None:
            metrics.latency.labels(model, when, runtime).set(milliseconds / 1000)


def _drop_limit(verdict: Verdict) -> float | None:
    """Points of accuracy; None if the gate limits another metric, or nothing."""
    gate = verdict.lineage.settings.get("gate")
    limit = gate.get("max_accuracy_drop") if isinstance(gate, dict) else None
    return float(limit) if isinstance(limit, int | float) else None


RUN_VARIABLE = "LRF_RUN_ID"

# What kfp puts in place of this is the run's id; where it put nothing, it is none.
_PLACEHOLDER = "{{"


@contextmanager
def job(step: str, part: str | int = "") -> Iterator[None]:
    """Run a job as a stage of its own; push its metrics when it ends, also when it fails.

    Without LRF_PUSHGATEWAY nothing is sent. A gateway that cannot be used is one warning.

    Args:
        step: the command or the component.
        part: tells it from others of the same step in the same run: the number of a shard or plan.
    """
    grouping = {"run": _run_id(), "step": step, "part": str(part)}
    with fresh() as metrics:
        try:
            with stage(step):
                yield
        finally:
            # The gateway would take a group without a label for one with the label empty.
            push(metrics.registry, {key: shown(value) for key, value in grouping.items() if value})


def _run_id() -> str:
    """Of the pipeline run; else one of this process alone, so that it overwrites nothing."""
    for variable in (RUN_VARIABLE, "KFP_RUN_ID"):
        given = os.environ.get(variable, "")
        if given and _PLACEHOLDER not in given:
            return given
    return f"{socket.gethostname()}-{int(time.time())}-{os.getpid()}"
