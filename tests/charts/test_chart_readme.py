"""The chart's README is current, and says something of every value."""

from __future__ import annotations

import yaml

from charts.readme import CHART, readme, values


def test_readme_is_current() -> None:
    written = (CHART / "README.md").read_text(encoding="utf-8")
    assert written == readme(), "run `make compile`"


def test_every_value_has_a_row() -> None:
    rows = {value.key for value in values()}
    assert all(value.description for value in values())

    def missing(given: object, path: str) -> list[str]:
        if path in rows:
            return []
        if not isinstance(given, dict):
            return [path]
        return [
            m for key, value in given.items() for m in missing(value, f"{path}.{key}".strip("."))
        ]

    assert not missing(yaml.safe_load((CHART / "values.yaml").read_text()), "")
