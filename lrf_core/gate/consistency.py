"""Whether what stands in a verdict follows from its own numbers and settings."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import ValidationError

from lrf_core.artifacts import Check, Evidence, MetricChange, Verdict
from lrf_core.gate.checks import checks_of
from lrf_core.gate.comparison import change_of, each_confidence
from lrf_core.gate.paired import paired_counts
from lrf_core.gate.served import EXPORT_SAMPLES
from lrf_core.spec import GateSpec

# Percentages and their intervals, computed on another machine.
_TOLERANCE = 1e-6


def gate_of(verdict: Verdict) -> GateSpec | None:
    """The settings that a verdict was made by; None if it has none that can be read."""
    try:
        return GateSpec.model_validate(verdict.lineage.settings.get("gate"))
    except ValidationError:
        return None


def contradictions(verdict: Verdict, evidence: Evidence) -> Iterator[str]:
    """What in a verdict does not follow from its own numbers and settings, in words.

    Each check is computed again as the gate made it. Only the notes of checks are not compared:
    they decide nothing.

    Args:
        evidence: that of the verdict.
    """
    gate, candidates = gate_of(verdict), verdict.lineage.settings.get("candidates")
    if gate is None or not isinstance(candidates, int) or candidates < 1:
        yield "it does not hold the settings of the gate that it was made by"
        return
    yield from _lineage(verdict)
    yield from _samples(verdict, evidence)
    yield from _metrics(verdict, gate, candidates)
    yield from _classes(verdict)
    due = checks_of(verdict, evidence, gate, candidates)
    yield from _checks(verdict.checks, due)
    if verdict.passed != all(check.passed for check in due):
        yield f"it says {'passed' if verdict.passed else 'not passed'}, its numbers do not"


def _lineage(verdict: Verdict) -> Iterator[str]:
    inputs = verdict.lineage.inputs
    named = inputs.get("baseline"), inputs.get("candidate"), verdict.lineage.parent
    if named != (verdict.baseline_digest, verdict.candidate_digest, verdict.candidate_digest):
        yield "its lineage names other models"


def _samples(verdict: Verdict, evidence: Evidence) -> Iterator[str]:
    before, after = evidence.output_shapes
    samples = verdict.candidate.samples
    if samples < 1 or verdict.baseline.samples != samples:
        yield "both models were not judged on the same samples"
    if (before == after) != (evidence.not_finite is not None):
        yield "its output shapes and its answers do not fit"
    compared = evidence.not_finite == 0
    parts = (
        verdict.accuracy_drop,
        verdict.drop_interval,
        verdict.agreement,
        verdict.calibration_error,
        verdict.confusion,
        verdict.candidate.accuracy,
        verdict.metrics or None,
        verdict.classes or None,
    )
    if any((part is not None) != compared for part in parts):
        yield "a part of the comparison is missing, or of one that was not made"
    exported = evidence.exported
    if exported and exported.samples != min(EXPORT_SAMPLES, samples):
        yield "the exported file was not compared on the samples due"


def _metrics(verdict: Verdict, gate: GateSpec, candidates: int) -> Iterator[str]:
    each = None if gate.confidence is None else each_confidence(gate.confidence, candidates)
    for change in verdict.metrics:
        if not _follows(change, verdict, each):
            yield f"the change of {change.name} does not follow from its numbers"
    if not verdict.metrics:
        return
    accuracy, agreement = verdict.metrics[0], verdict.agreement
    values = (
        (verdict.accuracy_drop, accuracy.drop),
        (verdict.baseline.accuracy, accuracy.before),
        (verdict.candidate.accuracy, accuracy.after),
        *zip(verdict.drop_interval or (), accuracy.interval, strict=False),
    )
    if accuracy.name != "accuracy" or accuracy.lost is None or accuracy.won is None:
        yield "its first metric is not accuracy"
    elif not all(one is not None and _close(one, other) for one, other in values):
        yield "the accuracy stands in it with several values"
    elif agreement is not None:
        # Right and wrong are different answers.
        most = 100.0 * (1.0 - (accuracy.lost + accuracy.won) / verdict.candidate.samples)
        if not 0.0 <= agreement <= most + _TOLERANCE:
            yield "the models agree on more samples than accuracy leaves"


def _follows(change: MetricChange, verdict: Verdict, confidence: float | None) -> bool:
    sign = 1.0 if change.higher_is_better else -1.0
    if not _close(change.drop, sign * (change.before - change.after)):
        return False
    if change.lost is None or change.won is None:
        low, high = change.interval
        bounded = (change.bound is not None) == (confidence is not None)
        return bounded and low <= high and (change.bound is None or low <= change.bound)
    samples, seed = verdict.candidate.samples, verdict.lineage.settings.get("seed")
    if not isinstance(seed, int) or min(change.lost, change.won) < 0:
        return False
    if change.lost + change.won > samples:
        return False
    is_accuracy = change.unit == "points"
    scale = 100.0 if is_accuracy else 1.0
    counted = paired_counts(
        change.before / scale, change.after / scale, lost=change.lost, won=change.won, count=samples
    )
    again = change_of(
        counted,
        change.name,
        is_accuracy=is_accuracy,
        higher_is_better=change.higher_is_better,
        seed=seed,
        confidence=confidence,
    )
    return all(_close(a, b) for a, b in zip(_flat(again), _flat(change), strict=True))


def _classes(verdict: Verdict) -> Iterator[str]:
    classes, matrix = verdict.classes, verdict.confusion
    if not classes or matrix is None or not verdict.metrics:
        return
    samples = verdict.candidate.samples
    if len({change.label for change in classes}) != len(classes):
        yield "a class stands in it twice"
    if sum(change.samples for change in classes) != samples:
        yield "its classes do not hold all samples"
    if not all(_close(change.drop, change.before - change.after) for change in classes):
        yield "the drop of a class does not follow from its numbers"
    accuracy = verdict.metrics[0]
    for when, whole in (("before", accuracy.before), ("after", accuracy.after)):
        right = sum(change.samples * getattr(change, when) for change in classes)
        if not _close(right / samples, whole):
            yield f"accuracy {when} is not that of its classes"
        answered = sum(getattr(change, f"answered_{when}") for change in classes)
        unanswered = any(
            getattr(change, f"answered_{when}") < change.samples * getattr(change, when) / 100 - 0.5
            for change in classes
        )
        if answered > samples or unanswered:
            yield f"the answers {when} are not those of its classes"
    if sum(map(sum, matrix.counts)) != samples:
        yield "its confusion matrix does not hold all samples"


def _checks(found: tuple[Check, ...], due: tuple[Check, ...]) -> Iterator[str]:
    names, wanted = [check.name for check in found], [check.name for check in due]
    yield from (f"check {name} is missing" for name in wanted if name not in names)
    yield from (f"{name} is no check of its gate" for name in names if name not in wanted)
    yield from (f"check {name} stands in it twice" for name in {*names} if names.count(name) > 1)
    if sorted(names) == sorted(wanted) and names != wanted:
        yield "its checks are in another order"
    for check in found:
        again = next((each for each in due if each.name == check.name), check)
        if again.model_copy(update={"note": check.note}) != check:
            yield (f"check {check.name} says {_said(check)}, but its numbers give {_said(again)}")


def _said(check: Check) -> str:
    return f"{'passed' if check.passed else 'failed'} ({check.measured}, limit {check.limit})"


def _flat(change: MetricChange) -> list[float]:
    """All its numbers; those that are not there are infinite."""
    values = (change.before, change.after, change.drop, *change.interval, change.bound)
    values += (*(change.bootstrap_interval or (None, None)), change.mcnemar_p)
    return [math.inf if value is None else value for value in values]


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
