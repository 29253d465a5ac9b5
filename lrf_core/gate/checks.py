"""The checks of the gate: a pure function of the numbers in a verdict and the settings of the gate.

The gate makes its checks by `checks_of`, and whoever acts on a verdict computes them again by it.
A value of None was not measured, and does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lrf_core.artifacts import (
    Check,
    ClassChange,
    Evidence,
    ExportedAnswers,
    MetricChange,
    ModelMeasures,
    Verdict,
)
from lrf_core.gate.comparison import each_confidence
from lrf_core.gate.metric import metric_title
from lrf_core.gate.paired import Paired, paired_counts
from lrf_core.gate.served import EXPORT_TOLERANCE
from lrf_core.spec import GateSpec

# Bootstrap intervals of fewer samples are too narrow: of a handful, most draws are alike.
BOOTSTRAP_SAMPLES = 100
# Answers of the original that must all have gone for a class to count as collapsed: a model that
# gives a class half as often gives it to none of 5 in 3% of the cases.
COLLAPSED_ANSWERS = 5

# Keeps a drop of exactly the limit from failing by the last bit of a float.
_ROUNDING = 1e-9
_INCOMPARABLE = "the answers cannot be compared"
_NAMED_CLASSES = 5


def checks_of(
    measured: Verdict, evidence: Evidence, gate: GateSpec, candidates: int
) -> tuple[Check, ...]:
    """All checks that the gate asks for, in order.

    Args:
        measured: holds the numbers; its checks are not looked at.
        evidence: that of `measured`.
        candidates: judged on the same samples.
    """
    before, after, problems = measured.baseline, measured.candidate, evidence.problems
    return (
        same_output_shape(*evidence.output_shapes),
        finite_outputs(evidence.not_finite, after.samples),
        *drop_checks(measured.metrics, gate, after.samples, candidates),
        *answer_checks(measured, gate),
        *size_checks(before, after, gate),
        *latency_checks(before, after, gate, problems),
        litert_same_answers(evidence.exported, problems),
        digest_unchanged(measured.candidate_digest, evidence.reloaded_digest, problems),
    )


def same_output_shape(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> Check:
    return Check(
        name="same_output_shape",
        limit=f"{before}",
        measured=f"{after}",
        passed=before == after,
        note="" if before == after else _INCOMPARABLE,
    )


def finite_outputs(not_finite: int | None, samples: int) -> Check:
    """Args: not_finite: samples; None when the candidate was not asked."""
    name, limit = "finite_outputs", "0 not finite"
    if not_finite is None:
        return _not_measured(name, limit, "the answers have another shape")
    measured = f"{not_finite:,} of {samples:,}"
    return Check(name=name, limit=limit, measured=measured, passed=not_finite == 0)


def drop_checks(
    metrics: Sequence[MetricChange], gate: GateSpec, samples: int, candidates: int = 1
) -> Iterator[Check]:
    """How much worse the metric of the gate may get; without that limit nothing passes.

    Not the drop on these samples is judged but what the true drop does not exceed, one-sided, with
    `gate.confidence`. Among several candidates the best looking one is better by luck, too: each is
    judged at 1 - (1 - confidence) / candidates (Bonferroni).

    Args:
        metrics: none if the answers cannot be compared.
        candidates: judged on the same samples.
    """
    found = {change.name: change for change in metrics}

    def check(name: str, metric: str, limit: float | None) -> Check:
        return _drop(name, found.get(metric_title(metric)), limit, gate, samples, candidates)

    if gate.judges_accuracy():
        yield check("accuracy_drop", gate.metric, gate.max_accuracy_drop)
        return
    yield check("metric_drop", gate.metric, gate.max_metric_drop)
    if gate.max_accuracy_drop is not None:
        yield check("accuracy_drop", "accuracy", gate.max_accuracy_drop)


def answer_checks(measured: Verdict, gate: GateSpec) -> Iterator[Check]:
    """Collapsed classes, worst class, agreement and calibration, where their limit is set."""
    if gate.max_collapsed_classes is not None:
        yield _collapsed_classes(measured.classes, gate.max_collapsed_classes)
    if gate.max_worst_class_drop is not None:
        yield _worst_class(measured.classes, gate.max_worst_class_drop)
    if gate.min_agreement is not None:
        yield _agreement(measured.agreement, gate.min_agreement)
    if gate.max_ece_drift is not None:
        yield _ece_drift(measured.calibration_error, gate.max_ece_drift)


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
    before: ModelMeasures, after: ModelMeasures, gate: GateSpec, problems: dict[str, str]
) -> Iterator[Check]:
    """Latency of the candidate over that of the baseline, where a limit is set."""
    if gate.max_keras_latency_ratio is not None:
        yield _latency_ratio(
            "keras_latency_ratio",
            (before.keras_latency_ms, before.keras_latency_p95_ms),
            (after.keras_latency_ms, after.keras_latency_p95_ms),
            gate.max_keras_latency_ratio,
            problems,
        )
    if gate.max_litert_latency_ratio is not None:
        yield _latency_ratio(
            "litert_latency_ratio",
            (before.litert_latency_ms, before.litert_latency_p95_ms),
            (after.litert_latency_ms, after.litert_latency_p95_ms),
            gate.max_litert_latency_ratio,
            problems,
        )


def litert_same_answers(exported: ExportedAnswers | None, problems: dict[str, str]) -> Check:
    """Whether the exported file answers as the model that was judged, see `compared_answers`."""
    name, limit = "litert_same_answers", f"<= {EXPORT_TOLERANCE:g} apart"
    if exported is None:
        return _not_measured(name, limit, problems.get(name, ""))
    return Check(
        name=name,
        limit=limit,
        measured=f"{exported.apart:.2g} apart",
        passed=exported.apart <= EXPORT_TOLERANCE and exported.other_class == 0,
        note=f"of the largest answer; {exported.samples} samples, {exported.other_class} of "
        "another class",
    )


def digest_unchanged(judged: str, reloaded: str | None, problems: dict[str, str]) -> Check:
    """Args: reloaded: digest after saving and loading; None if that failed."""
    name, limit = "digest_unchanged", judged[:12]
    if reloaded is None:
        return _not_measured(name, limit, problems.get(name, ""))
    same = judged == reloaded
    return Check(
        name=name,
        limit=limit,
        measured=reloaded[:12],
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
    problems: dict[str, str],
) -> Check:
    """Args: before, after: median and 95th percentile, ms."""
    limit, (before_ms, before_p95), (after_ms, after_p95) = f"<= {most:.2f}", before, after
    if before_ms is None or after_ms is None:
        return _not_measured(name, limit, problems.get(name, ""))
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
    change: MetricChange | None,
    limit: float | None,
    gate: GateSpec,
    samples: int,
    candidates: int,
) -> Check:
    measured = None if change is None else _amount(change, change.drop)
    if limit is None:
        note = f"nobody set max_{name}; without it nothing passes"
        return Check(name=name, limit="no limit set", measured=measured, passed=False, note=note)
    if change is None:
        unit = " points" if name == "accuracy_drop" else ""
        return _not_measured(name, f"<= {limit:.2f}{unit}", _INCOMPARABLE)
    low, high = (_amount(change, value, unit=False) for value in change.interval)
    notes = [f"95% interval {low} to {high}"]
    if change.name != "accuracy":
        notes.insert(0, f"of {change.name}")
    if gate.confidence is None:
        passed = change.drop <= limit + _ROUNDING
        notes.append(f"judged as measured on {samples:,} samples (gate.confidence is null)")
    else:
        passed, note = _with_confidence(change, limit, gate.confidence, samples, candidates)
        notes.append(note)
    return Check(
        name=name,
        limit=f"<= {_amount(change, limit)}",
        measured=measured,
        passed=passed,
        note="; ".join(notes),
    )


def _with_confidence(
    change: MetricChange, limit: float, confidence: float, samples: int, candidates: int
) -> tuple[bool, str]:
    """Whether the drop is within its limit with this confidence, and how that is known."""
    each = each_confidence(confidence, candidates)
    counted = _counted(change, samples)
    if counted is None and samples < BOOTSTRAP_SAMPLES:
        return False, (
            f"too few samples to bound a drop of {change.name}: {samples:,}, at least "
            f"{BOOTSTRAP_SAMPLES} needed"
        )
    scale = _scale(change)
    bound = change.bound if counted is None else scale * counted.upper_bound(each)
    if bound is None:
        return False, "what the drop does not exceed was not measured"
    note = f"at most {_amount(change, bound, unit=False)} with {100.0 * each:.4g}% confidence"
    if candidates > 1:
        note += f" ({100.0 * confidence:.4g}% over {candidates} candidates, Bonferroni)"
    if change.drop <= limit < bound - _ROUNDING:
        needed = (
            _samples_by_width(change.drop, bound, limit, samples)
            if counted is None
            else counted.samples_needed(limit / scale, each)
        )
        note += f"; {_too_few(samples, needed)}"
    return bound <= limit + _ROUNDING, note


def _counted(change: MetricChange, samples: int) -> Paired | None:
    """The comparison by numbers of lost and won samples; None for a metric that has none."""
    if change.lost is None or change.won is None:
        return None
    before, after = change.before / _scale(change), change.after / _scale(change)
    return paired_counts(before, after, lost=change.lost, won=change.won, count=samples)


def _samples_by_width(drop: float, bound: float, limit: float, samples: int) -> int | None:
    """Samples for a bound within the limit, if its distance falls with the root of the count."""
    if drop >= limit:
        return None
    wider = (bound - drop) / (limit - drop)
    return math.ceil(samples * wider * wider)


def _too_few(samples: int, needed: int | None) -> str:
    if needed is None:
        return "no number of samples shows that a drop is below its own size"
    return (
        f"too few samples to be that sure: {samples:,}, about {needed:,} needed if the drop stays "
        "as it is"
    )


def _scale(change: MetricChange) -> float:
    """From shares to the unit that is reported."""
    return 100.0 if change.unit else 1.0


def _amount(change: MetricChange, value: float, *, unit: bool = True) -> str:
    if not change.unit:
        return f"{value:.4g}"
    return f"{value:.2f} {change.unit}" if unit else f"{value:.2f}"


def _collapsed_classes(classes: Sequence[ClassChange], most: int) -> Check:
    name, limit = "collapsed_classes", f"<= {most:,}"
    if not classes:
        return _not_measured(name, limit, _INCOMPARABLE)
    collapsed = [
        change
        for change in classes
        if change.answered_before >= COLLAPSED_ANSWERS and not change.answered_after
    ]
    shown = [
        f"{change.label} (given to {change.answered_before:,} samples by the original)"
        for change in collapsed[:_NAMED_CLASSES]
    ]
    more = ", ..." if len(collapsed) > _NAMED_CLASSES else ""
    return Check(
        name=name,
        limit=limit,
        measured=f"{len(collapsed):,}",
        passed=len(collapsed) <= most,
        note=f"the candidate never answers {', '.join(shown)}{more}" if collapsed else "",
    )


def _worst_class(classes: Sequence[ClassChange], most: float) -> Check:
    name, limit = "worst_class_drop", f"<= {most:.2f} points"
    if not classes:
        return _not_measured(name, limit, _INCOMPARABLE)
    worst = max(classes, key=lambda change: change.drop)
    low, high = worst.interval
    return Check(
        name=name,
        limit=limit,
        measured=f"{worst.drop:.2f} points",
        passed=worst.drop <= most + _ROUNDING,
        note=f"class {worst.label}, {worst.samples:,} samples; 95% interval {low:.2f} to "
        f"{high:.2f}",
    )


def _agreement(agreement: float | None, least: float) -> Check:
    name, limit = "agreement", f">= {least:.2f}%"
    if agreement is None:
        return _not_measured(name, limit, _INCOMPARABLE)
    return Check(
        name=name,
        limit=limit,
        measured=f"{agreement:.2f}%",
        passed=agreement >= least - _ROUNDING,
        note="of the samples are given the original's class",
    )


def _ece_drift(errors: tuple[float, float] | None, most: float) -> Check:
    name, limit = "ece_drift", f"<= {most:.2f} points"
    if errors is None:
        return _not_measured(name, limit, _INCOMPARABLE)
    before, after = errors
    return Check(
        name=name,
        limit=limit,
        measured=f"{after - before:.2f} points",
        passed=after - before <= most + _ROUNDING,
        note=f"expected calibration error {before:.2f}% before, {after:.2f}% after",
    )


def _not_measured(name: str, limit: str, note: str) -> Check:
    return Check(name=name, limit=limit, measured=None, passed=False, note=note)
