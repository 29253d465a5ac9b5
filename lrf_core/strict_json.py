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
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} is there twice")
    return found
