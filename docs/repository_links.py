"""Links that leave docs/ lead to the repository: the site consists of these pages alone."""

from __future__ import annotations

import re
from typing import Any

_OUTWARD = re.compile(r"(!?)\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Rewrite the links of one page; without `repo_url` they become the names of files."""
    base = (config.repo_url or "").rstrip("/")

    def outward(match: re.Match[str]) -> str:
        text, path = match.group(2), match.group(3)
        return f"[{text}]({base}/blob/main/{path})" if base else f"{text} (`{path}`)"

    return _OUTWARD.sub(outward, markdown)
