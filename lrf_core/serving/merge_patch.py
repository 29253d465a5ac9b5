"""JSON merge patches (RFC 7396): what the Kubernetes API changes an object by."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


def merge_patch(current: JSON, target: JSON) -> JSON:
    """The smallest merge patch that turns `current` into `target`.

    Args:
        current, target: JSON objects without null values, which a merge patch cannot write.
    """
    patch: JSON = {key: None for key in current if key not in target}
    for key, wanted in target.items():
        found = current.get(key)
        if isinstance(found, dict) and isinstance(wanted, dict):
            if below := merge_patch(found, wanted):
                patch[key] = below
        elif key not in current or found != wanted or type(found) is not type(wanted):
            patch[key] = wanted
    return patch


def patched(current: JSON, patch: JSON) -> JSON:
    """What a merge patch makes of an object; neither is changed."""
    result = dict(current)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            below = result.get(key)
            result[key] = patched(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result
