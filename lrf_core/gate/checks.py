"""The questions of the gate: each takes what was measured and answers with a Check.

A value of None was not measured, and does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import Check, ModelMeasures
from lrf_core.gate.comparison import Comparison, MeasuredMetric
from lrf_core.spec import GateSpec

Array = npt.NDArray[Any]

# How closely an exported file must answer, as a share of the largest answer. Float32 arithmetic
# in another order stays a hundred times below it; a wrongly converted layer does not.
EXPORT_TOLERANCE = 1e-3
# Keeps a drop of exactly the limit from failing by the last bit of a float.
_ROUNDING = 1e-9
_INCOMPARABLE = "the answers cannot be compared"


def same_output_shape(before: tuple[Any, ...], after: tuple[Any, ...]) -> Check:
    return Check(
        name="same_output_shape",
        limit=f"{before}",
        measured=f"{after}",
        passed=before == after,
        note="" if before == after else _INCOMPARABLE,
    )


def finite_outputs(answers: Array | None) -> Check:
    """Args: answers: `(count, classes)` of the candidate; None when they were not asked for."""
    name, limit = "finite_outputs", "0 not finite"
    if answers is None:
        return _not_measured(name, limit, "the answers have another shape")
    bad = int(np.sum(~np.isfinite(answers).all(axis=-1)))
    return Check(name=name, limit=limit, measured=f"{bad:,} of {len(answers):,}", passed=bad == 0)


def drop_checks(
    compared: Comparison | None, gate: GateSpec, candidates: int = 1
) -> Iterator[Check]:
    """How much worse the metric of the gate may get; without that limit nothing passes.

    With `gate.confidence` not the drop is judged but what the true drop does not exceed, one-sided.
    Among several candidates the best looking one is better by luck, too: each is judged at
    1 - (1 - confidence) / candidates (Bonferroni).

    Args:
        compared: None where the answers cannot be compared.
        candidates: judged on the same samples.
    """
    metric = compared.metric if compared else None
    if gate.judges_accuracy():
        yield _drop("accuracy_drop", metric, gate.max_accuracy_drop, gate, candidates)
        return
    yield _drop("metric_drop", metric, gate.max_metric_drop, gate, candidates)
    if gate.max_accuracy_drop is not None:
        accuracy = compared.accuracy if compared else None
        yield _drop("accuracy_drop", accuracy, gate.max_accuracy_drop, gate, candidates)


def answer_checks(compared: Comparison | None, gate: GateSpec) -> Iterator[Check]:
    """Worst class, agreement and calibration, where their limit is set."""
    if gate.max_worst_class_drop is not None:
        yield _worst_class(compared, gate.max_worst_class_drop)
    if gate.min_agreement is not None:
        limit = f">= {gate.min_agreement:.2f}%"
        if compared is None:
            yield _not_measured("agreement", limit, _INCOMPARABLE)
        else:
            yield Check(
                name="agreement",
                limit=limit,
                measured=f"{compared.agreement:.2f}%",
                passed=compared.agreement >= gate.min_agreement - _ROUNDING,
                note="of the samples are given the original's class",
            )
    if gate.max_ece_drift is not None:
        yield _ece_drift(compared, gate.max_ece_drift)


def size_checks(before: ModelMeasures, after: ModelMeasures, gate: GateSpec) -> Iterator[Check]:
    """Parameters always, MACs and weight bytes where their limit is set."""
    fewer = after.cost.params < before.cost.params
    yield Check(
        name="fewer_parameters",
        limit=f"< {before.cost.params:,}",
        measured=f"{after.cost.params:,}",
        passed=fewer,
        note="" if fewer else "the candidate is not smaller than the model it would replace",
    )
    if gate.min_params_reduction is not None:
        yield _reduction(
            "params_reduction", before.cost.params, after.cost.params, gate.min_params_reduction
        )
    if gate.min_macs_reduction is not None:
        yield _reduction(
            "macs_reduction", before.cost.macs, after.cost.macs, gate.min_macs_reduction
        )
    if gate.max_weight_bytes is not None:
        yield Check(
            name="weight_bytes",
            limit=f"<= {gate.max_weight_bytes:,}",
            measured=f"{after.weight_bytes:,}",
            passed=after.weight_bytes <= gate.max_weight_bytes,
        )


def latency_checks(
    before: ModelMeasures, after: ModelMeasures, gate: GateSpec, why_no_litert: str
) -> Iterator[Check]:
    """Latency of the candidate over that of the baseline, where a limit is set."""
    if gate.max_keras_latency_ratio is not None:
        yield _latency_ratio(
            "keras_latency_ratio",
            (before.keras_latency_ms, before.keras_latency_p95_ms),
            (after.keras_latency_ms, after.keras_latency_p95_ms),
            gate.max_keras_latency_ratio,
            "",
        )
    if gate.max_litert_latency_ratio is not None:
        yield _latency_ratio(
            "litert_latency_ratio",
            (before.litert_latency_ms, before.litert_latency_p95_ms),
            (after.litert_latency_ms, after.litert_latency_p95_ms),
            gate.max_litert_latency_ratio,
            why_no_litert,
        )


def litert_same_answers(judged: Array | None, exported: Array | None, reason: str) -> Check:
    """Whether the exported file answers as the model that was judged.

    No answer may be further apart than EXPORT_TOLERANCE times the largest answer, and the class
    must be the same wherever the lead over the second class is larger than that.

    Args:
        judged, exported: `(n, classes)` of the same samples.
        reason: why one of them is None.
    """
    name, limit = "litert_same_answers", f"<= {EXPORT_TOLERANCE:g} apart"
    if judged is None or exported is None:
        return _not_measured(name, limit, reason)
    if not (np.isfinite(judged).all() and np.isfinite(exported).all()):
        return _not_measured(name, limit, "the answers are not finite")
    if judged.shape != exported.shape:
        return _not_measured(name, limit, f"LiteRT answers with shape {exported.shape}")
    scale = float(np.abs(judged).max()) or 1.0
    apart = float(np.abs(judged - exported).max()) / scale
    runner_up, best = np.sort(judged, axis=-1)[:, -2:].T
    decided = best - runner_up > EXPORT_TOLERANCE * scale
    other = int(np.sum(decided & (judged.argmax(axis=-1) != exported.argmax(axis=-1))))
    return Check(
        name=name,
        limit=limit,
        measured=f"{apart:.2g} apart",
        passed=apart <= EXPORT_TOLERANCE and other == 0,
        note=f"of the largest answer; {len(judged)} samples, {other} of another class",
    )


def digest_unchanged(judged: str, loaded: str | None, reason: str) -> Check:
    """Args: loaded: digest after saving and loading; None, with the reason, when that failed."""
    if loaded is None:
        return _not_measured("digest_unchanged", judged[:12], reason)
    same = judged == loaded
    return Check(
        name="digest_unchanged",
        limit=judged[:12],
        measured=loaded[:12],
        passed=same,
        note="" if same else "saved and loaded again it is another model than the one judged",
    )


def _reduction(name: str, before: int, after: int, least: float) -> Check:
    found = 1.0 - after / before if before else 0.0
    return Check(
        name=name,
        limit=f">= {least:.2%}",
        measured=f"{found:.2%}",
        passed=found >= least - _ROUNDING,
    )


def _latency_ratio(
    name: str,
    before: tuple[float | None, float | None],
    after: tuple[float | None, float | None],
    most: float,
    reason: str,
) -> Check:
    """Args: before, after: median and 95th percentile, ms."""
    limit, (before_ms, before_p95), (after_ms, after_p95) = f"<= {most:.2f}", before, after
    if before_ms is None or after_ms is None:
        return _not_measured(name, limit, reason)
    note = f"{before_ms:.3f} ms before, {after_ms:.3f} ms after"
    if before_p95 is not None and after_p95 is not None:
        note += f"; 95th percentiles {before_p95:.3f} and {after_p95:.3f} ms"
    return Check(
        name=name,
        limit=limit,
        measured=f"{after_ms / before_ms:.2f}",
        passed=after_ms / before_ms <= most,
        note=note,
    )


def _drop(
    name: str,
    measured: MeasuredMetric | None,
    limit: float | None,
    gate: GateSpec,
    candidates: int,
) -> Check:
    said = None if measured is None else _amount(measured, measured.drop)
    if limit is None:
        note = f"nobody set max_{name}; without it nothing passes"
        return Check(name=name, limit="no limit set", measured=said, passed=False, note=note)
    if measured is None:
        unit = " points" if name == "accuracy_drop" else ""
        return _not_measured(name, f"<= {limit:.2f}{unit}", _INCOMPARABLE)
    low, high = (_amount(measured, value, unit=False) for value in measured.interval)
    notes = [f"95% interval {low} to {high}"]
    if measured.metric.name != "accuracy":
        notes.insert(0, f"of {measured.metric.name}")
    bound = measured.drop
    if gate.confidence is not None:
        confidence = 1.0 - (1.0 - gate.confidence) / candidates
        bound = measured.scale * measured.paired.upper_bound(confidence)
        notes.append(_with_confidence(measured, bound, confidence, gate.confidence, candidates))
        if measured.drop <= limit < bound - _ROUNDING:
            notes.append(_too_few(measured, limit, confidence))
    return Check(
        name=name,
        limit=f"<= {_amount(measured, limit)}",
        measured=said,
        passed=bound <= limit + _ROUNDING,
        note="; ".join(notes),
    )


def _with_confidence(
    measured: MeasuredMetric, bound: float, each: float, whole: float, candidates: int
) -> str:
    said = f"at most {_amount(measured, bound, unit=False)} with {100.0 * each:.4g}% confidence"
    if candidates == 1:
        return said
    return f"{said} ({100.0 * whole:.4g}% over {candidates} candidates, Bonferroni)"


def _too_few(measured: MeasuredMetric, limit: float, confidence: float) -> str:
    needed = measured.paired.samples_needed(limit / measured.scale, confidence)
    if needed is None:
        return "no number of samples shows that a drop is below its own size"
    return (
        f"too few samples to be that sure: {measured.paired.count:,}, about {needed:,} needed "
        "if the drop stays as it is"
    )


def _amount(measured: MeasuredMetric, value: float, *, unit: bool = True) -> str:
    if not measured.metric.is_accuracy:
        return f"{value:.4g}"
    return f"{value:.2f} points" if unit else f"{value:.2f}"


def _worst_class(compared: Comparison | None, most: float) -> Check:
    name, limit = "worst_class_drop", f"<= {most:.2f} points"
    if compared is None:
        return _not_measured(name, limit, _INCOMPARABLE)
    worst = compared.classes[0]
    low, high = worst.interval
    return Check(
        name=name,
        limit=limit,
        measured=f"{worst.drop:.2f} points",
        passed=worst.drop <= most + _ROUNDING,
        note=f"class {worst.label}, {worst.samples:,} samples; 95% interval {low:.2f} to "
        f"{high:.2f}",
    )


def _ece_drift(compared: Comparison | None, most: float) -> Check:
    name, limit = "ece_drift", f"<= {most:.2f} points"
    if compared is None:
        return _not_measured(name, limit, _INCOMPARABLE)
    before, after = compared.calibration_error
    return Check(
        name=name,
        limit=limit,
        measured=f"{after - before:.2f} points",
        passed=after - before <= most + _ROUNDING,
        note=f"expected calibration error {before:.2f}% before, {after:.2f}% after",
    )


def _not_measured(name: str, limit: str, note: str) -> Check:
    return Check(name=name, limit=limit, measured=None, passed=False, note=note)
