"""docs/metrics.md has every metric as it is; Prometheus' own linter has nothing to say of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from controller_metrics import busy_controller
from made_verdict import made_verdict
from monitoring import program
from prometheus_client import CollectorRegistry, Counter, generate_latest

from lrf_core import telemetry

DOCS = Path(__file__).parents[2] / "docs"

# Name, type, labels.
Row = tuple[str, str, tuple[str, ...]]


def table(heading: str) -> set[Row]:
    text = (DOCS / "metrics.md").read_text()
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(lrf_\w+)` \| (\w+) \|(.*?)\| ", section, re.MULTILINE)
    return {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def declared(registry: CollectorRegistry) -> set[Row]:
    found = set()
    for metric in registry._collector_to_names:
        name = metric._name + ("_total" if isinstance(metric, Counter) else "")
        found.add((name, metric._type, tuple(metric._labelnames)))
    return found


def touched() -> telemetry.Metrics:
    """Metrics of a job that did everything."""
    with telemetry.fresh() as metrics:
        telemetry.record_verdict(made_verdict(), "digits")
        telemetry.count_scored("svd", 1)
        telemetry.count_cached("scores", 1, 1)
        telemetry.count_moved("up", 1)
        telemetry.count_retry(OSError())
        telemetry.count_release("digits")
        telemetry.count_promotion("team/digits", "promoted")
        try:
            with telemetry.stage("explore"):
                raise OSError
        except OSError:
            with telemetry.stage("explore"):
                pass
    return metrics


def test_the_tables_have_every_metric_with_its_type_and_labels() -> None:
    assert table("Of jobs") == declared(telemetry.Metrics().registry)


def test_the_stand_in_for_the_controller_serves_what_its_table_says() -> None:
    assert table("Of the controller") == declared(busy_controller())


def test_the_controller_serves_what_its_table_says() -> None:
    """As families: one without a value yet has no labels to be seen."""
    controller = pytest.importorskip("pipelines.controller.journal")
    served = {
        (metric.name + ("_total" if metric.type == "counter" else ""), metric.type)
        for metric in controller.Metrics(["s3://incoming"]).registry.collect()
    }
    assert served == {(name, kind) for name, kind, _ in table("Of the controller")}


def test_a_job_that_did_everything_exposes_every_metric_and_no_other() -> None:
    metrics = touched()
    exposed = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    assert exposed == {name for name, _, _ in declared(metrics.registry)}


def test_a_job_that_did_nothing_exposes_nothing() -> None:
    assert generate_latest(telemetry.Metrics().registry) == b""


def test_promtool_has_nothing_to_say_of_them() -> None:
    promtool = program("promtool", "prometheus")
    text = generate_latest(touched().registry)
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
