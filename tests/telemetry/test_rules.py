"""Rules and dashboard: checked and tested by promtool, complete, and about metrics that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from controller_metrics import busy_controller
from monitoring import program
from queries import RULES, names_in, panel_queries, panels, rules

from lrf_core import telemetry

RULES_TEST = Path(__file__).parent / "rules_test.yaml"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"


def promtool(*arguments: object) -> None:
    command = [program("promtool", "prometheus"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint-fatal", RULES)


def test_the_unit_tests_of_the_rules_pass() -> None:
    promtool("test", "rules", RULES_TEST)


def test_every_alert_is_tested_to_be_raised_and_not_to_be() -> None:
    raised, silent = set(), set()
    for case in yaml.safe_load(RULES_TEST.read_text())["tests"]:
        for test in case.get("alert_rule_test", []):
            (raised if test["exp_alerts"] else silent).add(test["alertname"])
    assert raised == silent == set(rules("alert"))


def test_every_recorded_series_is_tested() -> None:
    expressions = [
        test["expr"]
        for case in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for test in case.get("promql_expr_test", [])
        if test["exp_samples"]
    ]
    assert set().union(*map(names_in, expressions)) == set(rules("record"))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    headings = re.findall(r"^## (Lrf\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert headings == list(rules("alert"))


@pytest.mark.parametrize("name", rules("alert"))
def test_an_alert_says_what_how_bad_and_what_to_do(name: str) -> None:
    alert = rules("alert")[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    section = RUNBOOKS.read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    for part in ("**Meaning.**", "**Impact.**", "**How to look.**", "**What to do.**"):
        assert section.count(part) == 1, part


def exposed_names() -> set[str]:
    registries = (telemetry.Metrics().registry, busy_controller())
    named = {name for registry in registries for name in registry._names_to_collectors}
    return named | {"push_time_seconds"} | set(rules("record"))


def test_rules_ask_of_metrics_that_exist() -> None:
    known = exposed_names()
    for kind in ("alert", "record"):
        for name, rule in rules(kind).items():
            assert names_in(rule["expr"]) <= known, name


def test_panels_ask_of_metrics_that_exist() -> None:
    known = exposed_names()
    for title, query in panel_queries():
        assert names_in(query), title
        assert names_in(query) <= known, title


def test_panels_have_units_and_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + row)
            for column in range(place["w"])
            for row in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(column for column, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())
