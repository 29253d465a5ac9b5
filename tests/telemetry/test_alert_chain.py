"""From a model that the gate refuses to a user who is told: all of Prometheus' own programs."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from controller_metrics import busy_controller
from exposed import Series, exposed_at, series
from made_verdict import made_verdict
from monitoring import alertmanager, asked, eventually, prometheus, pushgateway, receiver
from queries import RULES, names_in, panel_queries, rules
from seaweed import Seaweed
from tiny import Trained

from lrf_core import telemetry
from lrf_core.commands import app as cli
from lrf_core.errors import StorageError


@dataclass(frozen=True)
class Chain:
    """Addresses, and the alerts that have come out at the end."""

    gateway: str
    prometheus: str
    alerts: list[dict[str, Any]]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return list(asked(self.prometheus, "/api/v1/query", query=expression)["result"])

    def told(self, alert: str, status: str = "firing", **labels: str) -> Callable[[], Any]:
        """Asks whether a user was told of it."""
        wanted = {"alertname": alert, **labels}.items()
        return lambda: [
            each
            for each in self.alerts
            if each["status"] == status and wanted <= each["labels"].items()
        ]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """Pushgateway and controller, scraped by Prometheus, whose alerts go to a webhook."""
    with ExitStack() as open_:
        gateway = open_.enter_context(pushgateway())
        webhook, alerts = open_.enter_context(receiver())
        told = {"webhook_configs": [{"url": webhook, "send_resolved": True}], "name": "person"}
        at_once = {"group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        manager = open_.enter_context(
            alertmanager(
                tmp_path / "alertmanager",
                {"route": {"receiver": "person", **at_once}, "receivers": [told]},
            )
        )
        controller, thread = prometheus_client.start_http_server(0, "127.0.0.1", busy_controller())
        open_.callback(thread.join)
        open_.callback(controller.server_close)
        open_.callback(controller.shutdown)
        pushed = {"job_name": "pushgateway", "honor_labels": True, **at(gateway)}
        served = {"job_name": "lrf", **at(f"http://127.0.0.1:{controller.server_port}")}
        config = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "alerting": {"alertmanagers": [at(manager)]},
            "scrape_configs": [{**target, "scrape_timeout": "2s"} for target in (pushed, served)],
        }
        url = open_.enter_context(prometheus(tmp_path / "prometheus", config))
        yield Chain(gateway, url, alerts)


def at(url: str) -> dict[str, Any]:
    return {"static_configs": [{"targets": [url.removeprefix("http://")]}]}


def lrf(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_model_that_fails_the_gate_raises_an_alert_until_one_passes(
    chain: Chain,
    trained: Trained,
    s3_settings: Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LRF_PUSHGATEWAY", chain.gateway)
    store = f"s3://{s3_settings.bucket}/telemetry/{uuid.uuid4().hex}"
    quick = [
        "--set",
        "explore.samples=32",
        "--epochs",
        "0",
        "--params-reduction",
        "0.1",
        "--set",
        "explore.methods=[svd]",
    ]
    places = ["--out", tmp_path / "out", "--to", f"{store}/models", "--cache", f"{store}/cache"]
    data = ["--data", trained.data_file]

    def compress(run: str, **gate: float) -> int:
        spec = tmp_path / "spec.yaml"
        spec.write_text(json.dumps({"gate": {"latency_repeats": 3, **gate}}))
        monkeypatch.setenv("LRF_RUN_ID", run)
        model = trained.model_file
        return lrf(monkeypatch, "compress", model, *data, *quick, *places, "--spec", spec)

    assert compress("lenient", max_accuracy_drop=100) == 0
    eventually(lambda: chain.query("lrf:gate_passed:latest == 1"), "a gate that passed")
    assert not chain.told("LrfGateFailed")()
    assert compress("strict", max_accuracy_drop=100, min_params_reduction=0.999) == 3
    told = eventually(chain.told("LrfGateFailed", model="tiny", run="strict"), "the alert")
    assert told[0]["annotations"]["summary"] == "tiny did not pass the gate"
    assert told[0]["annotations"]["runbook_url"].endswith("#lrfgatefailed")
    failed = chain.query('lrf:gate_check_passed:latest{model="tiny"} == 0')
    assert [each["metric"]["check"] for each in failed] == ["params_reduction"]
    check_what_was_pushed(exposed_at(chain.gateway))
    push_the_rest(monkeypatch)
    eventually(chain.told("LrfGateFailed", "resolved", model="tiny"), "the end of the alert")
    eventually(chain.told("LrfPromotionRolledBack", service="team/tiny"), "a rolled back promotion")
    eventually(chain.told("LrfStorageErrors", cause="StorageError"), "storage that failed")
    check_rules(chain)
    for title, query in panel_queries():
        eventually(lambda query=query: chain.query(query), f"data for the panel {title}: {query}")


def check_what_was_pushed(found: dict[Series, float]) -> None:
    """By a run that went the whole way, and one that kept all but the verdict."""
    whole = {"run": "lenient", "step": "compress"}
    stages = {"lenient": set(), "strict": set()}
    for name, labels in found:
        if name == "lrf_stage_duration_seconds":
            stages[dict(labels)["run"]].add(dict(labels)["stage"])
    assert stages["strict"] == {"compress", "validate"}
    assert stages["lenient"] == stages["strict"] | {
        "analyze",
        "explore",
        "decompose",
        "finetune",
        "publish",
    }
    assert found[series("lrf_releases_published_total", model="tiny", **whole)] == 1
    assert found[series("lrf_candidates_scored_total", method="svd", **whole)] > 0
    for direction in ("up", "down"):  # a release is read again before it is announced
        assert found[series("lrf_storage_bytes_total", direction=direction, **whole)] > 10_000
    # That the candidate failed the gate is no failed stage.
    assert not [name for name, _ in found if "failures" in name]


def push_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other jobs would push: a version that passes, a failed stage, a promotion."""
    monkeypatch.setenv("LRF_RUN_ID", "later")
    with telemetry.job("validate"):
        telemetry.record_verdict(made_verdict(), "tiny")
    with suppress(StorageError), telemetry.job("publish"):
        telemetry.count_retry(ConnectionResetError())
        raise StorageError("the store is down")
    with telemetry.job("promote"):
        telemetry.count_promotion("team/tiny", "rolled_back")


def check_rules(chain: Chain) -> None:
    """Prometheus evaluates each; each recorded series, and each that an alert asks of, is there."""
    groups = asked(chain.prometheus, "/api/v1/rules")["groups"]
    evaluated = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(evaluated) == set(rules("record")) | set(rules("alert"))
    for name, rule in evaluated.items():
        assert rule["health"] == "ok", (name, rule.get("lastError"))
    for name in rules("record"):
        values = eventually(lambda name=name: chain.query(name), f"data for {name}")
        assert not any(math.isnan(float(each["value"][1])) for each in values), name
    for name, rule in rules("alert").items():
        for metric in names_in(rule["expr"]):
            assert chain.query(metric), (name, metric)
