"""The numbers of a verdict by name, for the metrics view of Kubeflow Pipelines."""

from __future__ import annotations

from lrf_core.artifacts import ModelMeasures, Verdict


def metrics_of(verdict: Verdict) -> dict[str, float]:
    """Every number that was measured: of both models, and how the candidate compares.

    Accuracies and agreement in percent, drops in points, sizes in bytes, latencies in ms.
    """
    compared = {
        "accuracy_drop": verdict.accuracy_drop,
        "agreement": verdict.agreement,
        "failed_checks": sum(not check.passed for check in verdict.checks),
    }
    numbers = {
        **_of_model("baseline", verdict.baseline),
        **_of_model("candidate", verdict.candidate),
        **compared,
    }
    return {name: float(value) for name, value in numbers.items() if value is not None}


def _of_model(prefix: str, measures: ModelMeasures) -> dict[str, float | None]:
    return {
        f"{prefix}_accuracy": measures.accuracy,
        f"{prefix}_params": measures.cost.params,
        f"{prefix}_macs": measures.cost.macs,
        f"{prefix}_weight_bytes": measures.weight_bytes,
        f"{prefix}_keras_latency_ms": measures.keras_latency_ms,
        f"{prefix}_litert_latency_ms": measures.litert_latency_ms,
    }
