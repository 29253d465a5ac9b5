"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {None: 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.strip())
    if not found:
        raise ValueError("write a duration such as 30s, 10m or 1h")
    return float(found[1]) * _SECONDS[found[2]]


# Seconds; read from a number of them or from 500ms, 30s, 10m, 1h.
Duration = Annotated[float, BeforeValidator(_seconds)]
