"""Numbers and names as people read them."""

from __future__ import annotations

from dataclasses import dataclass

from lrf_core.artifacts import Check, ModelMeasures, Plan, Verdict

NOT_MEASURED = "not measured"

_WORDS = {"macs": "MACs", "litert": "LiteRT", "keras": "Keras", "params": "parameter"}


@dataclass(frozen=True)
class Figure:
    """One measure before and after, in words; `better` is None where nothing can be said."""

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
        _sized("Parameters", before.cost.params, after.cost.params),
        _sized("MACs", before.cost.macs, after.cost.macs),
        _sized("Weight bytes", before.weight_bytes, after.weight_bytes),
        _timed("Keras latency", before.keras_latency_ms, after.keras_latency_ms),
        _timed("LiteRT latency", before.litert_latency_ms, after.litert_latency_ms),
    )


def points_lost(verdict: Verdict) -> str:
    """Change of accuracy, e.g. "-0.79 points"; the sign is that of the change, not of the drop."""
    if verdict.accuracy_drop is None:
        return NOT_MEASURED
    return points(-verdict.accuracy_drop)


def points(change: float) -> str:
    """A change of accuracy, e.g. "+0.10 points"."""
    return f"{_signed(change)} points"


def interval(verdict: Verdict) -> str:
    """95% interval of the change of accuracy, from the lowest to the highest."""
    if verdict.drop_interval is None:
        return NOT_MEASURED
    low, high = verdict.drop_interval
    return f"{_signed(-high)} to {_signed(-low)} points"


def predicted(plan: Plan, verdict: Verdict) -> str:
    """The change of accuracy that the plan was chosen by beside what came out; "" if none was."""
    if plan.predicted_drop is None or plan.calibration is None:
        return ""
    return (
        f"predicted: {_signed(-plan.calibration.expected_drop)} points "
        f"({_signed(-plan.predicted_drop)} before fine-tuning, measured "
        f"{_signed(-plan.calibration.measured_drop)}); came out: {points_lost(verdict)}"
    )


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


def printable(name: str) -> str:
    """A name from a model, without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _signed(points: float) -> str:
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


def _timed(label: str, before: float | None, after: float | None) -> Figure:
    if before is None or after is None:
        return Figure(label, _milliseconds(before), _milliseconds(after), NOT_MEASURED)
    change = ratio(before, after, "faster", "slower")
    return Figure(
        label, _milliseconds(before), _milliseconds(after), change, _better(before, after)
    )


def _better(before: float, after: float) -> bool | None:
    return None if after == before else after < before


def _milliseconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g} ms"
