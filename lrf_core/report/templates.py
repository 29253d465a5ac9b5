"""The templates of reports and charts: everything in them is escaped, and as `shown`."""

from __future__ import annotations

from pathlib import Path

import jinja2

from lrf_core.redaction import shown


def templates() -> jinja2.Environment:
    """Names of layers, classes and files are not to be trusted, in no place of a template."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # By extension jinja2 would escape "html" only.
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: object) -> object:
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return shown(value, lines=True)
    return value
