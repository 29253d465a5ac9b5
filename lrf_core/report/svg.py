"""A chart as an SVG file of its own."""

from __future__ import annotations

from pathlib import Path

import jinja2

from lrf_core.atomic import write_atomically
from lrf_core.report import text
from lrf_core.report.chart import Chart


def write_svg(path: Path, chart: Chart) -> Path:
    """Draw a chart into a file; returns the file. Raises ArtifactError."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.finalize = lambda value: text.printable(value) if isinstance(value, str) else value
    drawn = environment.get_template("chart.svg.j2").render(chart=chart, standalone=True)
    write_atomically(path, drawn.encode())
    return path
