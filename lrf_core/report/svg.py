"""A chart as an SVG file of its own."""

from __future__ import annotations

from pathlib import Path

from lrf_core.files.atomic import write_atomically
from lrf_core.report.chart import Chart
from lrf_core.report.templates import templates


def write_svg(path: Path, chart: Chart) -> Path:
    """Draw a chart into a file; returns the file. Raises ArtifactError."""
    drawn = templates().get_template("chart.svg.j2").render(chart=chart, standalone=True)
    write_atomically(path, drawn.encode())
    return path
