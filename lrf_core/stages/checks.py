"""The questions of the gate: each takes what was measured and answers with a Check.

A value of None was not measured, and does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.artifacts import Check, ModelMeasures
from lrf_core.models.compare import Comparison
from lrf_core.spec import GateSpec

Array = npt.NDArray[Any]

# How closely an exported file must answer, as a share of the largest answer. Float32 arithmetic
# in another order stays a hundred times below it; a wrongly converted layer does not.
EXPORT_TOLERANCE = 1e-3
# Keeps a drop of exactly the limit from failing by the last bit of a float.
_ROUNDING = 1e-9


def same_output_shape(before: tuple[Any, ...], after: tuple[Any, ...]) -> Check:
    return Check(
        name="same_output_shape",
        limit=f"{before}",
        measured=f"{after}",
        passed=before == after,
        note="" if before == after else "the answers cannot be compared",
    )


def finite_outputs(answers: Array | None) -> Check:
    """Args: answers: `(count, classes)` of the candidate; None when they were not asked for."""
    name, limit = "finite_outputs", "0 not finite"
    if answers is None:
        return _not_measured(name, limit, "the answers have another shape")
    bad = int(np.sum(~np.isfinite(answers).all(axis=-1)))
    return Check(name=name, limit=limit, measured=f"{bad:,} of {len(answers):,}", passed=bad == 0)


def accuracy_drop(compared: Comparison | None, gate: GateSpec) -> Check:
    name, limit = "accuracy_drop", gate.max_accuracy_drop
    if limit is None:
        measured = f"{compared.drop:.2f} points" if compared else None
        note = "nobody set max_accuracy_drop; without it nothing passes"
        return Check(name=name, limit="no limit set", measured=measured, passed=False, note=note)
    if compared is None:
        return _not_measured(name, f"<= {limit:.2f} points", "the answers cannot be compared")
    low, high = compared.interval
    return Check(
        name=name,
        limit=f"<= {limit:.2f} points",
        measured=f"{compared.drop:.2f} points",
        passed=compared.drop <= limit + _ROUNDING,
        note=f"95% interval {low:.2f} to {high:.2f}",
    )


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
            before.keras_latency_ms,
            after.keras_latency_ms,
            gate.max_keras_latency_ratio,
            "",
        )
    if gate.max_litert_latency_ratio is not None:
        yield _latency_ratio(
            "litert_latency_ratio",
            before.litert_latency_ms,
            after.litert_latency_ms,
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
    name: str, before_ms: float | None, after_ms: float | None, most: float, reason: str
) -> Check:
    limit = f"<= {most:.2f}"
    if before_ms is None or after_ms is None:
        return _not_measured(name, limit, reason)
    return Check(
        name=name,
        limit=limit,
        measured=f"{after_ms / before_ms:.2f}",
        passed=after_ms / before_ms <= most,
        note=f"{before_ms:.3f} ms before, {after_ms:.3f} ms after",
    )


def _not_measured(name: str, limit: str, note: str) -> Check:
    return Check(name=name, limit=limit, measured=None, passed=False, note=note)
