"""Jobs and a real pushgateway: nothing overwrites, nothing fails for it, nothing stays for ever."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from exposed import exposed_at, series
from made_verdict import made_verdict
from monitoring import asked, pushgateway
from prometheus_client import push_to_gateway

from lrf_core import telemetry
from lrf_core.errors import DataError
from lrf_core.telemetry import pushgateway as pushing

PASSWORD = "sesame-of-the-gateway"
# bcrypt of it.
HASH = "$2b$04$9UTijeOtM/0rdqU848Un0.21qsVWH75B..G4ZOMYNPW68jWu7I0Le"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LRF_PUSHGATEWAY",
        "LRF_PUSHGATEWAY_USER",
        "LRF_PUSHGATEWAY_PASSWORD",
        "KFP_RUN_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LRF_RUN_ID", "run/1")  # a slash has to be escaped


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pushgateway() as url:
        yield url


@pytest.fixture
def gateway(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Empty, and named by the environment."""
    monkeypatch.setenv("LRF_PUSHGATEWAY", server)
    telemetry.forget_old(-3600)
    assert exposed_at(server) == {}
    return server


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def test_parts_and_runs_side_by_side_overwrite_nothing(
    gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("run/1", "run2"):
        monkeypatch.setenv("LRF_RUN_ID", run)
        for shard in range(3):
            with telemetry.job("explore", shard):
                telemetry.count_scored("svd", 10 * shard + 1)
        with telemetry.job("validate"):
            telemetry.record_verdict(made_verdict(), "digits")
    found = exposed_at(gateway)
    name = "lrf_candidates_scored_total"
    for run in ("run/1", "run2"):
        for shard in range(3):
            labels = {"run": run, "step": "explore", "part": str(shard), "method": "svd"}
            assert found[series(name, **labels)] == 10 * shard + 1
        passed = series("lrf_gate_passed", run=run, step="validate", model="digits")
        assert found[passed] == 1


def test_a_step_that_fails_pushes_why_and_one_that_is_tried_again_replaces_it(gateway: str) -> None:
    with pytest.raises(DataError), telemetry.job("explore", 1):
        raise DataError("no samples")
    where = {"run": "run/1", "step": "explore", "part": "1", "stage": "explore"}
    failures = series("lrf_stage_failures_total", cause="DataError", **where)
    success = series("lrf_stage_last_success_timestamp_seconds", **where)
    assert exposed_at(gateway)[failures] == 1
    assert success not in exposed_at(gateway)
    with telemetry.job("explore", 1):
        pass
    assert failures not in exposed_at(gateway)
    assert success in exposed_at(gateway)


@pytest.mark.parametrize("run", ["", "{{workflow.uid}}"])
def test_a_run_without_an_id_overwrites_no_other(
    gateway: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_RUN_ID", run)
    with telemetry.job("compress"):
        pass
    (run,) = {dict(labels)["run"] for _, labels in exposed_at(gateway)}
    assert run.startswith(socket.gethostname())


def test_old_groups_are_forgotten_and_those_of_others_stay(gateway: str) -> None:
    for shard in range(2):
        with telemetry.job("explore", shard):
            pass
    with telemetry.job("validate"):
        pass
    with telemetry.fresh() as others:
        telemetry.count_release("digits")
        push_to_gateway(gateway, "other", others.registry)
    assert telemetry.forget_old(3600) == 0
    assert telemetry.forget_old(-3600) == 3
    assert exposed_at(gateway) == {}
    assert telemetry.forget_old(-3600) == 0
    assert [group["labels"]["job"] for group in asked(gateway, "/api/v1/metrics")] == ["other"]


def test_a_password_is_sent_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "web.yml"
    config.write_text(f"basic_auth_users: {{lrf: '{HASH}'}}\n")
    with pushgateway(config) as url:
        monkeypatch.setenv("LRF_PUSHGATEWAY", url)
        monkeypatch.setenv("LRF_PUSHGATEWAY_USER", "lrf")
        monkeypatch.setenv("LRF_PUSHGATEWAY_PASSWORD", "wrong-" + PASSWORD)
        with telemetry.job("explore"):
            pass
        assert said(warnings) == [
            f"metrics of this job are lost: the pushgateway at {url} answers with HTTP 401; check "
            "LRF_PUSHGATEWAY, LRF_PUSHGATEWAY_USER and LRF_PUSHGATEWAY_PASSWORD, and its log"
        ]
        with pytest.raises(telemetry.PushgatewayError, match="HTTP 401") as error:
            telemetry.forget_old(0)
        assert PASSWORD not in f"{error.value!r} {pushing._gateway()!r}"
        monkeypatch.setenv("LRF_PUSHGATEWAY_PASSWORD", PASSWORD)
        with telemetry.job("explore"):
            pass
        assert telemetry.forget_old(-3600) == 1
    assert len(said(warnings)) == 1
    assert PASSWORD not in warnings.text


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9", "cannot be reached: NewConnectionError"),
        ("http://lrf:sesame@127.0.0.1:9", "holds a user name; give it in LRF_PUSHGATEWAY_USER"),
        ("127.0.0.1:9091", "write http://host:9091"),
        ("ftp://host", "write http://host:9091"),
    ],
)
def test_a_gateway_of_no_use_is_one_warning(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LRF_PUSHGATEWAY", url)
    with telemetry.job("explore"):
        pass
    (line,) = said(warnings)
    assert reason in line
    assert "sesame" not in line
    with pytest.raises(telemetry.PushgatewayError, match=reason.split(";")[0]):
        telemetry.forget_old(0)


def test_a_gateway_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    """The one here takes connections and says nothing. The job's own error is what is raised."""
    monkeypatch.setattr(pushing, "_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("LRF_PUSHGATEWAY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DataError), telemetry.job("explore"):
            raise DataError("no samples")
    (line,) = said(warnings)
    assert "metrics of this job are lost" in line


def test_something_else_at_the_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {b"{}", b"[]", b"<html>", b'{"data": [{"labels": {"job": "lrf"}}]}'}
    gateway = pushing._Gateway("http://gateway", {})
    for answer in answers:
        monkeypatch.setattr(pushing._Gateway, "_ask", lambda *_, answer=answer: answer)
        with pytest.raises(telemetry.PushgatewayError, match="does not answer as a pushgateway"):
            list(gateway.groups())


def test_without_a_gateway_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "_gateway", lambda: pytest.fail("asked for one"))
    with telemetry.job("explore"):
        pass
