"""What is wrong with settings, in one line."""

from __future__ import annotations

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lrf_core.redaction import redacted


def problems_in(error: ValidationError, settings: type[BaseModel]) -> str:
    """Every problem by the setting's name; of an unknown one, the nearest that is known.

    Args:
        settings: what was validated.
    """
    return "; ".join(_problem(each, settings) for each in error.errors())


def _problem(problem: ErrorDetails, settings: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting '{where}'{_suggestion(problem['loc'], settings)}"
    if problem["type"] == "missing":
        return f"setting '{where}' is required"
    return f"setting '{where or 'spec'}': {problem['msg']}{_shown(problem)}"


def _shown(problem: ErrorDetails) -> str:
    """The value, unless a secret may have been put there by mistake."""
    may_be_secret = isinstance(problem["input"], dict) or {"env", "secrets"} & {*problem["loc"]}
    return "" if may_be_secret else f", got {redacted(repr(problem['input'])):.60}"


def _suggestion(location: tuple[int | str, ...], settings: type[BaseModel]) -> str:
    section = settings
    for part in location[:-1]:
        if isinstance(part, int):
            continue  # of a list: its items are the section
        below = section_in(section.model_fields[part].annotation)
        if below is None:
            return ""
        section = below
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    known = ", ".join(section.model_fields)
    return f" (did you mean '{near[0]}'?)" if near else f" (known here: {known})"


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds: itself, or one in `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is dict:
        return None  # its keys are the user's own
    return next(filter(None, map(section_in, get_args(annotation))), None)
