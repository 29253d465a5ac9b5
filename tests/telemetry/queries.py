"""What the rules and the dashboard of the chart ask of Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

FILES = Path(__file__).parents[2] / "charts" / "lrf" / "files"
RULES = FILES / "rules.yaml"
DASHBOARD = FILES / "dashboard.json"

_NAME = re.compile(r"\b(?:lrf[_:][a-z0-9_:]+|push_time_seconds)")


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """By name. Args: kind: "alert" or "record"."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def panel_queries() -> list[tuple[str, str]]:
    """Title of the panel, and the query as Grafana sends it."""
    return [
        (
            panel["title"],
            target["expr"].replace("$model", ".*").replace("$__range", "5m"),
        )
        for panel in panels()
        for target in panel["targets"]
    ]


def names_in(expression: str) -> set[str]:
    """Of the metrics and recorded series in it."""
    return set(_NAME.findall(expression))
