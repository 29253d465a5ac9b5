"""The numbers of a verdict by name, for the metrics view of Kubeflow Pipelines."""

from __future__ import annotations

import re

from kfp import dsl

from lrf_core.artifacts import ModelMeasures, Verdict


def log_judgement(
    result: Verdict,
    candidate: dsl.Model,
    verdict: dsl.Artifact,
    metrics: dsl.Metrics,
    confusion: dsl.ClassificationMetrics,
) -> None:
    """Describe a verdict in the artifacts that a step writes."""
    candidate.metadata.update(digest=result.candidate_digest)
    verdict.metadata.update(passed=result.passed, digest=result.candidate_digest)
    for name, value in metrics_of(result).items():
        metrics.log_metric(name, value)
    if result.confusion:
        rows = [list(row) for row in result.confusion.counts]
        confusion.log_confusion_matrix(list(result.confusion.labels), rows)


def metrics_of(verdict: Verdict) -> dict[str, float]:
    """Every number that was measured: of both models, and how the candidate compares.

    Accuracies, agreement and calibration error in percent, drops and their 95% interval in points,
    sizes in bytes, latencies in ms (medians and 95th percentiles), ratios as after over before.
    """
    low, high = verdict.drop_interval or (None, None)
    ece_before, ece_after = verdict.calibration_error or (None, None)
    compared = {
        "accuracy_drop": verdict.accuracy_drop,
        "accuracy_drop_low": low,
        "accuracy_drop_high": high,
        "agreement": verdict.agreement,
        "baseline_ece": ece_before,
        "candidate_ece": ece_after,
        "worst_class_drop": verdict.classes[0].drop if verdict.classes else None,
        "failed_checks": sum(not check.passed for check in verdict.checks),
        "warnings": len(verdict.warnings),
    }
    numbers = {
        **_of_model("baseline", verdict.baseline),
        **_of_model("candidate", verdict.candidate),
        **_ratios(verdict.baseline, verdict.candidate),
        **compared,
        **_of_metrics(verdict),
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _of_metrics(verdict: Verdict) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for change in verdict.metrics:
        name = re.sub(r"\W+", "_", change.name)
        found[f"{name}_mcnemar_p"] = change.mcnemar_p
        if name != "accuracy":
            found |= {
                f"baseline_{name}": change.before,
                f"candidate_{name}": change.after,
                f"{name}_drop": change.drop,
            }
    return found


def _ratios(before: ModelMeasures, after: ModelMeasures) -> dict[str, float | None]:
    pairs = {
        "keras_latency_ratio": (before.keras_latency_ms, after.keras_latency_ms),
        "litert_latency_ratio": (before.litert_latency_ms, after.litert_latency_ms),
    }
    return {name: two / one if one and two else None for name, (one, two) in pairs.items()}


def _of_model(prefix: str, measures: ModelMeasures) -> dict[str, float | None]:
    return {
        f"{prefix}_accuracy": measures.accuracy,
        f"{prefix}_params": measures.cost.params,
        f"{prefix}_macs": measures.cost.macs,
        f"{prefix}_weight_bytes": measures.weight_bytes,
        f"{prefix}_keras_latency_ms": measures.keras_latency_ms,
        f"{prefix}_keras_latency_p95_ms": measures.keras_latency_p95_ms,
        f"{prefix}_litert_latency_ms": measures.litert_latency_ms,
        f"{prefix}_litert_latency_p95_ms": measures.litert_latency_p95_ms,
    }
