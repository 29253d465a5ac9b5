"""JSON that can be understood in one way only."""

from __future__ import annotations

import json
from typing import Any

import pydantic_core


def parsed(content: bytes) -> Any:
    """The content of a JSON document.

    Raises:
        ValueError: it is no JSON in UTF-8, has a key twice, a number that is not finite, or is
            nested too deep.
    """
    pydantic_core.from_json(content, allow_inf_nan=False)  # looks at the depth as well
    return json.loads(content, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.60} is there twice")
        found[key] = value
    return found
