"""Verdicts as the gate makes them, of answers made by hand: without models, in milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from lrf_core.artifacts import (
    Cost,
    Evidence,
    ExportedAnswers,
    Lineage,
    ModelMeasures,
    Verdict,
)
from lrf_core.gate.checks import checks_of
from lrf_core.gate.comparison import compare, each_confidence
from lrf_core.gate.metric import metric_of
from lrf_core.spec import GateSpec

CLASSES = ("ant", "bee", "cat", "dog")
GATE = GateSpec(max_accuracy_drop=1.0)
BASELINE = "b" * 64
# The original is right on all samples but every so many.
_WRONG_EVERY = 20


def sound_verdict(
    candidate: str = "c" * 64,
    *,
    gate: GateSpec = GATE,
    baseline: str = BASELINE,
    lost: int = 0,
    samples: int = 1000,
    params: tuple[int, int] = (1000, 400),
    litert_ms: tuple[float | None, float | None] = (0.5, 0.4),
    candidates: int = 1,
    shape: tuple[int | None, ...] = (None, 4),
    not_finite: int = 0,
    reloaded: str | None = None,
    apart: float = 1e-7,
    warnings: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
) -> Verdict:
    """The verdict on a candidate that is right where the original is, except some samples.

    Args:
        candidate, baseline: digests.
        lost: samples that only the original gets right.
        params: before and after.
        litert_ms: median latencies before and after.
        shape: of the candidate's answers.
        not_finite: samples on which the candidate answers NaN.
        reloaded: digest of the candidate once it was loaded again, where it is another.
        apart: how far off the LiteRT file answers.
        settings: in the lineage, beside those of the gate.
    """
    same_shape = shape == (None, len(CLASSES))
    before, after = (
        ModelMeasures(
            cost=Cost(params=each, macs=50 * each),
            weight_bytes=4 * each,
            samples=samples,
            keras_latency_ms=2.0,
            litert_latency_ms=latency,
        )
        for each, latency in zip(params, litert_ms, strict=True)
    )
    made_by = {"gate": gate.model_dump(mode="json"), "seed": 0, "candidates": candidates}
    evidence = Evidence(
        output_shapes=((None, len(CLASSES)), shape),
        not_finite=not_finite if same_shape else None,
        exported=ExportedAnswers(samples=min(64, samples), apart=apart, other_class=0),
        reloaded_digest=reloaded or candidate,
        problems={} if None not in litert_ms else {"litert_latency_ratio": "LiteRT cannot"},
    )
    measured = Verdict(
        lineage=Lineage(
            inputs={"baseline": baseline, "candidate": candidate, "data": "d" * 64},
            settings={**made_by, **(settings or {})},
            parent=candidate,
        ),
        passed=False,
        baseline_digest=baseline,
        candidate_digest=candidate,
        checks=(),
        baseline=before,
        candidate=after,
        warnings=warnings,
        evidence=evidence,
    )
    if same_shape and not not_finite:
        measured = _compared(measured, gate, lost, samples, candidates)
    return rejudged(measured, gate, candidates)


def rejudged(measured: Verdict, gate: GateSpec = GATE, candidates: int = 1) -> Verdict:
    """The same numbers with the checks that follow from them."""
    assert measured.evidence is not None
    checks = checks_of(measured, measured.evidence, gate, candidates)
    passed = all(check.passed for check in checks)
    return measured.model_copy(update={"checks": checks, "passed": passed})


def _compared(
    measured: Verdict, gate: GateSpec, lost: int, samples: int, candidates: int
) -> Verdict:
    labels = np.arange(samples) % len(CLASSES)
    places = np.arange(samples)
    before = np.where(places % _WRONG_EVERY, labels, (labels + 1) % len(CLASSES))
    after = before.copy()
    right = np.flatnonzero(before == labels)[:lost]
    after[right] = (labels[right] + 1) % len(CLASSES)
    found = compare(
        np.eye(len(CLASSES))[before] * 0.9,
        np.eye(len(CLASSES))[after] * 0.9,
        labels,
        metric=metric_of(gate, len(CLASSES)),
        class_names=CLASSES,
        seed=0,
    )
    each = None if gate.confidence is None else each_confidence(gate.confidence, candidates)
    metrics = tuple(metric.change(0, each) for metric in found.metrics())
    return measured.model_copy(
        update={
            "accuracy_drop": found.accuracy.drop,
            "drop_interval": found.accuracy.interval,
            "agreement": found.agreement,
            "metrics": metrics,
            "classes": found.classes,
            "calibration_error": found.calibration_error,
            "confusion": found.confusion,
            "baseline": measured.baseline.model_copy(update={"accuracy": metrics[0].before}),
            "candidate": measured.candidate.model_copy(update={"accuracy": metrics[0].after}),
        }
    )
