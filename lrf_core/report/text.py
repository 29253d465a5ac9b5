"""Numbers and names as people read them."""

from __future__ import annotations

from dataclasses import dataclass

from lrf_core.artifacts import (
    Check,
    FinetuneRecord,
    MetricChange,
    ModelMeasures,
    Override,
    Plan,
    Verdict,
)

NOT_MEASURED = "not measured"

_WORDS = {"ece": "ECE", "macs": "MACs", "litert": "LiteRT", "keras": "Keras", "params": "parameter"}


@dataclass(frozen=True)
class Figure:
    """One measure before and after, in words; `better` is None if nothing can be said."""

    label: str
    before: str
    after: str
    change: str
    better: bool | None = None


def figures(verdict: Verdict) -> tuple[Figure, ...]:
    """What changed from the baseline to the candidate, the most important first."""
    before, after = verdict.baseline, verdict.candidate
    return (
        _accuracy(verdict),
        *(_metric(change) for change in verdict.metrics if change.name != "accuracy"),
        *_calibration(verdict),
        _sized("Parameters", before.cost.params, after.cost.params),
        _sized("MACs", before.cost.macs, after.cost.macs),
        _sized("Weight bytes", before.weight_bytes, after.weight_bytes),
        _timed(
            "Keras latency",
            (before.keras_latency_ms, before.keras_latency_p95_ms),
            (after.keras_latency_ms, after.keras_latency_p95_ms),
        ),
        _timed(
            "LiteRT latency",
            (before.litert_latency_ms, before.litert_latency_p95_ms),
            (after.litert_latency_ms, after.litert_latency_p95_ms),
        ),
    )


def metric_line(change: MetricChange) -> str:
    """How sure the change of a metric is, in one sentence without a full stop."""
    in_words = signed if change.unit else _signed_number
    low, high = (in_words(_as_change(change, value)) for value in _limits(change))
    said = f"95% interval of the change of {change.name}: {low} to {high}"
    said += f" {change.unit} ({change.method})" if change.unit else f" ({change.method})"
    if change.mcnemar_p is None:
        return said
    return (
        f"{said}; only the original is right on {change.lost:,} samples, only the candidate on "
        f"{change.won:,}: McNemar p = {_p_value(change.mcnemar_p)}"
    )


def overridden(override: Override) -> str:
    """Who let what through, and why."""
    failed = ", ".join(check.name for check in override.checks)
    return f"{failed}: overridden by {override.by}: {override.reason}"


def points_lost(verdict: Verdict) -> str:
    """Change of accuracy, e.g. "-0.79 points"; the sign is that of the change, not of the drop."""
    if verdict.accuracy_drop is None:
        return NOT_MEASURED
    return points(-verdict.accuracy_drop)


def points(change: float) -> str:
    """A change of accuracy, e.g. "+0.10 points"."""
    return f"{signed(change)} points"


def interval(verdict: Verdict) -> str:
    """95% interval of the change of accuracy, from the lowest to the highest."""
    if verdict.drop_interval is None:
        return NOT_MEASURED
    low, high = verdict.drop_interval
    return f"{signed(-high)} to {signed(-low)} points"


def predicted(plan: Plan, verdict: Verdict) -> str:
    """The change of accuracy that the plan was chosen by beside what came out; "" if none was."""
    if plan.predicted_drop is None or plan.calibration is None:
        return ""
    return (
        f"predicted: {signed(-plan.calibration.expected_drop)} points "
        f"({signed(-plan.predicted_drop)} before fine-tuning, measured "
        f"{signed(-plan.calibration.measured_drop)}); came out: {points_lost(verdict)}"
    )


def trained(record: FinetuneRecord) -> str:
    """How the model was trained, and why that ended early if it did."""
    said = f"trained in batches of {record.batch_size}, learning rate {record.learning_rate:.2g}"
    if record.recalibrated:
        said += ", statistics of batch normalization estimated again"
    return f"{said}; stopped: {record.stopped}" if record.stopped else said


def ratio(before: float, after: float, less: str, more: str) -> str:
    """How many times less or more, e.g. "2.1x fewer"."""
    if before <= 0 or after <= 0:
        return "-"
    if round(max(before, after) / min(before, after), 2) == 1.0:
        return "the same"
    return f"{before / after:.2f}x {less}" if after < before else f"{after / before:.2f}x {more}"


def kernel(shape: tuple[int, ...]) -> str:
    """A kernel shape, e.g. "3x3x16x32"."""
    return "x".join(str(size) for size in shape) or "-"


def ranks(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)


def kept(before: int, after: int) -> str:
    """What is left, in percent."""
    return f"{after / before:.0%}" if before else "-"


def check_title(check: Check) -> str:
    """The name of a check in words, e.g. "LiteRT latency ratio"."""
    words = [_WORDS.get(word, word) for word in check.name.split("_")]
    return words[0][0].upper() + " ".join(words)[1:]


def signed(points: float) -> str:
    """Points with their sign; none for what rounds to 0."""
    return f"{points:+.2f}" if abs(points) >= 0.005 else "0.00"


def _accuracy(verdict: Verdict) -> Figure:
    def percent(measures: ModelMeasures) -> str:
        return NOT_MEASURED if measures.accuracy is None else f"{measures.accuracy:.2f}%"

    refused = any(check.name == "accuracy_drop" and not check.passed for check in verdict.checks)
    gained = verdict.accuracy_drop is not None and verdict.accuracy_drop < 0
    return Figure(
        "Accuracy",
        percent(verdict.baseline),
        percent(verdict.candidate),
        points_lost(verdict),
        # A drop within the limit is what was asked for: neither better nor worse.
        True if gained else (False if refused else None),
    )


def _sized(label: str, before: int, after: int) -> Figure:
    change = ratio(before, after, "smaller", "larger")
    return Figure(label, f"{before:,}", f"{after:,}", change, _better(before, after))


def _timed(
    label: str,
    before: tuple[float | None, float | None],
    after: tuple[float | None, float | None],
) -> Figure:
    """Args: before, after: median and 95th percentile, ms."""
    words = _milliseconds(*before), _milliseconds(*after)
    if before[0] is None or after[0] is None:
        return Figure(label, *words, NOT_MEASURED)
    change = ratio(before[0], after[0], "faster", "slower")
    return Figure(label, *words, change, _better(before[0], after[0]))


def _metric(change: MetricChange) -> Figure:
    """A metric that is not top-1 accuracy."""
    # The name of a metric that is no accuracy is the user's own.
    label = change.name.capitalize() if change.unit else change.name
    moved = _as_change(change, change.drop)
    if change.unit:
        return Figure(
            label, f"{change.before:.2f}%", f"{change.after:.2f}%", f"{signed(moved)} points"
        )
    return Figure(label, f"{change.before:.4g}", f"{change.after:.4g}", _signed_number(moved))


def _calibration(verdict: Verdict) -> tuple[Figure, ...]:
    if verdict.calibration_error is None:
        return ()
    before, after = verdict.calibration_error
    change = f"{signed(after - before)} points"
    return (Figure("Calibration error", f"{before:.2f}%", f"{after:.2f}%", change),)


def _as_change(change: MetricChange, drop: float) -> float:
    return -drop if change.higher_is_better else drop


def _limits(change: MetricChange) -> tuple[float, float]:
    """Limits of the drop in the order in which the change rises."""
    low, high = change.interval
    return (high, low) if change.higher_is_better else (low, high)


def _signed_number(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _p_value(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "below 0.0001"


def _better(before: float, after: float) -> bool | None:
    return None if after == before else after < before


def _milliseconds(median: float | None, p95: float | None) -> str:
    if median is None:
        return NOT_MEASURED
    return f"{median:.3g} ms" + (f" (p95 {p95:.3g})" if p95 is not None else "")
