"""Every metric of a job, declared in one place; docs/metrics.md has the same table."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric

from lrf_core.redaction import shown


class _Registry(CollectorRegistry):
    """Exposes what was touched, without the `_created` gauge that the client adds to a counter."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                # Names of models and services are not to be trusted.
                sample._replace(labels={key: shown(text) for key, text in sample.labels.items()})
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
            if metric.samples:
                yield metric


class Metrics:
    """The metrics of one job, from zero, in a registry of their own.

    All have labels, so that a job exposes only what it did. `stage` is the stage that was run,
    `model` the name that the model is, or would be, released under.
    """

    def __init__(self) -> None:
        self.registry = _Registry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        self.stage_duration = gauge(
            "lrf_stage_duration_seconds", "Time that a stage took, failed or not.", "stage"
        )
        self.stage_success = gauge(
            "lrf_stage_last_success_timestamp_seconds", "When a stage last ended well.", "stage"
        )
        self.stage_failures = counter(
            "lrf_stage_failures_total",
            "Stages that failed, by class of the error.",
            "stage",
            "cause",
        )
        self.scored = counter(
            "lrf_candidates_scored_total", "Candidates scored, without those cached.", "method"
        )
        self.cache_requests = counter(
            "lrf_cache_requests_total", "Look-ups in a cache: hit or miss.", "cache", "outcome"
        )
        self.moved = counter(
            "lrf_storage_bytes_total", "Content sent to (up) or read from (down) S3.", "direction"
        )
        self.retries = counter(
            "lrf_storage_retries_total", "Requests to S3 that were sent again, by cause.", "cause"
        )
        self.parameters = gauge(
            "lrf_model_parameters", "Parameters, before and after compression.", "model", "when"
        )
        self.macs = gauge(
            "lrf_model_macs", "Multiply-adds for one sample, before and after.", "model", "when"
        )
        self.weight_bytes = gauge(
            "lrf_model_weight_bytes", "Bytes of all weights as stored.", "model", "when"
        )
        self.latency = gauge(
            "lrf_model_latency_seconds",
            "Median time for one sample, in Keras and in LiteRT.",
            "model",
            "when",
            "runtime",
        )
        self.accuracy = gauge(
            "lrf_model_accuracy_ratio", "Top-1 accuracy on the test samples.", "model", "when"
        )
        self.accuracy_drop = gauge(
            "lrf_model_accuracy_drop_ratio", "Top-1 accuracy lost on the same samples.", "model"
        )
        self.drop_limit = gauge(
            "lrf_gate_accuracy_drop_limit_ratio", "Largest drop that the gate lets pass.", "model"
        )
        self.check_passed = gauge(
            "lrf_gate_check_passed", "Whether a check of the gate passed: 1 or 0.", "model", "check"
        )
        self.gate_passed = gauge(
            "lrf_gate_passed", "Whether the candidate passed the whole gate: 1 or 0.", "model"
        )
        self.judged = gauge(
            "lrf_gate_judged_timestamp_seconds", "When the gate's answer was recorded.", "model"
        )
        self.releases = counter(
            "lrf_releases_published_total",
            "Releases written, without those already there.",
            "model",
        )
        self.promotions = counter(
            "lrf_promotions_total", "Promotions of an InferenceService.", "service", "outcome"
        )
