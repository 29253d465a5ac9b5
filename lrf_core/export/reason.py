"""Why a converter or a runtime refuses a model, in one line."""

from __future__ import annotations

import re


def reason(error: Exception) -> str:
    """The line of an error that says what is wrong, without the graph locations before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error:" in line), lines[0] if lines else "")
    words = re.sub(r"^.*(error: |\)\): )", "", telling)
    words = re.sub(r"^'tf\.(\w+)' op is neither .*$", r"it has no operation \1", words)
    return words[:300] or type(error).__name__
