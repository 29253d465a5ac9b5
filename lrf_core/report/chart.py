"""Geometry of charts: points and ticks in pixels, drawn as SVG by the template `chart.svg.j2`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrf_core.artifacts import FinetuneRecord
from lrf_core.files.atomic import write_atomically
from lrf_core.report.templates import templates

WIDTH, HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 24, 14, 40
_MOST_TICKS = 10


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where (pixels) and what it says."""

    at: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One point of a curve: where (pixels) and what it says when pointed at."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Line:
    """One curve; `style` names it in the style sheet."""

    name: str
    style: str
    dots: tuple[Dot, ...]

    def path(self) -> str:
        return " ".join(f"{dot.x},{dot.y}" for dot in self.dots)


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        best_x: of the epoch whose weights were kept, pixels; None if nothing is to be marked.
    """

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    best_x: float | None = None
    x_title: str = "epoch"
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def learning_curve(record: FinetuneRecord) -> tuple[Chart, ...]:
    """Charts of accuracy and loss; none when there was no training."""
    if len(record.curve) < 2:
        return ()
    epochs = [point.epoch for point in record.curve]
    return (
        _chart(
            "Accuracy on held-out samples, %",
            epochs,
            record.best_epoch,
            {"held out": ("held-out", [point.validation_accuracy for point in record.curve])},
        ),
        _chart(
            "Loss, nats per sample",
            epochs,
            record.best_epoch,
            {
                "training": ("training", [point.loss for point in record.curve]),
                "held out": ("held-out", [point.validation_loss for point in record.curve]),
            },
        ),
    )


def curve_chart(
    title: str,
    x_title: str,
    points: Sequence[tuple[float, float, str]],
    *,
    from_zero: bool = False,
) -> Chart:
    """One curve, its heights by powers of ten where they span more than two.

    Args:
        points: along the axis, height, and what it says when pointed at. Heights that are not
            positive have no place among powers of ten and are left out there.
        from_zero: whether both axes begin at 0, so that proportions can be seen.
    """
    heights = [height for _, height, _ in points if height > 0]
    logarithmic = not from_zero and bool(heights) and max(heights) > 100 * min(heights)
    drawn = [point for point in points if point[1] > 0 or not logarithmic]
    origin = [(0.0, 0.0, "")] if from_zero else []
    xs, ys, _ = zip(*drawn, *origin, strict=True)
    across = _round_marks(min(xs), max(xs))
    low, high = min(ys), max(ys)
    powers = (
        range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) if logarithmic else ()
    )
    up: list[float] = [float(power) for power in powers] or _round_marks(low, high)
    every = math.ceil(len(up) / _MOST_TICKS)
    width, height, top = 640, 400, 36
    right, bottom = width - _RIGHT, height - _BOTTOM

    def x(value: float) -> float:
        share = (value - across[0]) / (across[-1] - across[0])
        return round(_LEFT + share * (right - _LEFT), 1)

    def y(value: float) -> float:
        return round(top + (up[-1] - value) / (up[-1] - up[0]) * (bottom - top), 1)

    dots = tuple(
        Dot(x(at), y(math.log10(value) if logarithmic else value), label)
        for at, value, label in drawn
    )
    return Chart(
        title=title,
        lines=(Line("curve", "curve", dots),),
        x_ticks=tuple(Tick(x(mark), f"{mark:.6g}") for mark in across),
        y_ticks=tuple(
            Tick(y(mark), f"{10**mark if logarithmic else mark:.3g}") for mark in up[::-every]
        ),
        x_title=x_title,
        width=width,
        height=height,
        right=right,
        top=top,
        bottom=bottom,
    )


def _chart(
    title: str,
    epochs: Sequence[int],
    best_epoch: int,
    curves: dict[str, tuple[str, list[float]]],
) -> Chart:
    values = [value for _, curve in curves.values() for value in curve]
    marks = _round_marks(min(values), max(values))
    decimals = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))

    def x(epoch: float) -> float:
        width = WIDTH - _LEFT - _RIGHT
        return round(_LEFT + (epoch - epochs[0]) / (epochs[-1] - epochs[0]) * width, 1)

    def y(value: float) -> float:
        height = HEIGHT - _TOP - _BOTTOM
        return round(_TOP + (marks[-1] - value) / (marks[-1] - marks[0]) * height, 1)

    every = math.ceil(len(epochs) / 12)
    return Chart(
        title=title,
        lines=tuple(
            Line(
                name,
                style,
                tuple(
                    Dot(x(epoch), y(value), f"epoch {epoch}, {name}: {value:.4g}")
                    for epoch, value in zip(epochs, curve, strict=True)
                ),
            )
            for name, (style, curve) in curves.items()
        ),
        x_ticks=tuple(Tick(x(epoch), str(epoch)) for epoch in epochs[::every]),
        y_ticks=tuple(Tick(y(mark), f"{mark:.{decimals}f}") for mark in marks),
        best_x=x(best_epoch),
    )


def _round_marks(low: float, high: float) -> list[float]:
    """Three to seven round values that enclose `low` and `high`."""
    span = max(high - low, 1e-3 * max(abs(high), 1.0))
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * mark for mark in range(first, max(last, first + 1) + 1)]


def write_svg(path: Path, chart: Chart) -> Path:
    """Draw a chart into a file; returns the file. Raises ArtifactError."""
    drawn = templates().get_template("chart.svg.j2").render(chart=chart, standalone=True)
    write_atomically(path, drawn.encode())
    return path
