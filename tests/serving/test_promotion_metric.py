"""A PromQL query decides whether traffic moves on: with Prometheus itself, and with what fails."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import prometheus_client
import pytest
from monitoring import prometheus
from promotions import World

from lrf_core.serving.prometheus import Metric, QueryError
from lrf_core.spec import PrometheusSpec
from lrf_core.stages.promote import NotPromotedError

Answer = Callable[[str, dict[str, str]], tuple[int, Any]]


def vector(*values: float, **labels: str) -> tuple[int, Any]:
    series = [{"metric": labels, "value": [0, str(value)]} for value in values]
    return 200, {"status": "success", "data": {"resultType": "vector", "result": series}}


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server with Prometheus' API; its address."""

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.path == "/api/v1/query"
            status, content = answer(parse_qs(form)["query"][0], dict(self.headers))
            said = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def metric(url: str, query: str = "up", retry_s: float = 0.0, **limits: Any) -> Metric:
    settings = PrometheusSpec.model_validate({"url": url, "query": query, "max": 1.0, **limits})
    names = {"namespace": "team", "service": "digits", "revision": "digits-00002"}
    return Metric(settings, names, retry_s)


def test_every_series_has_to_be_within_the_limits() -> None:
    with answering(lambda *_: vector(0.5, 0.9)) as url:
        assert metric(url).check() == "0.5, 0.9"
        with pytest.raises(QueryError, match=r"0\.9 is above the limit of 0\.8"):
            metric(url, max=0.8).check()
        with pytest.raises(QueryError, match=r"0\.5 is below the limit of 0\.6"):
            metric(url, min=0.6).check()


def test_no_values_and_nan_are_no_data() -> None:
    for nothing in (vector(), vector(float("nan"))):
        with answering(lambda *_, nothing=nothing: nothing) as url:
            assert metric(url).check() is None


def test_names_are_filled_in_and_dollars_of_promql_stay() -> None:
    asked = []

    def answer(query: str, headers: Any) -> Any:
        asked.append(query)
        return vector(0.0)

    with answering(answer) as url:
        query = 'label_replace(x{ns="$namespace",s="$service",r="$revision"}, "a", "$1", "b", "")'
        metric(url, query).check()
    assert asked == ['label_replace(x{ns="team",s="digits",r="digits-00002"}, "a", "$1", "b", "")']


def test_a_token_comes_from_the_environment_and_is_not_shown(monkeypatch) -> None:
    monkeypatch.setenv("LRF_PROMETHEUS_TOKEN", "sesame-token")
    seen = []

    def answer(query: str, headers: dict[str, str]) -> Any:
        seen.append(headers["Authorization"])
        return 401, b"who are you"

    with answering(answer) as url, pytest.raises(QueryError, match="HTTP 401") as error:
        metric(url).check()
    assert seen == ["Bearer sesame-token"]
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((400, {"status": "error", "errorType": "bad_data", "error": "parse error"}), "parse er"),
        ((200, {"hello": "world"}), "does not answer as Prometheus does"),
        ((200, {"status": "success", "data": {"resultType": "matrix", "result": []}}), "matrix"),
        ((404, b"<html>"), "answers with HTTP 404"),
    ],
)
def test_what_is_no_answer_is_an_error(answer: Any, expected: str) -> None:
    with answering(lambda *_: answer) as url, pytest.raises(QueryError, match=expected):
        metric(url).check()


def test_without_a_limit_a_query_is_refused() -> None:
    with pytest.raises(ValueError, match="set max or min"):
        PrometheusSpec(url="http://prometheus:9090", query="up")


def test_a_breach_rolls_back(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())

    def answer(query: str, headers: Any) -> Any:
        share = world.cluster.shares().get(world.uri("new"), 0)
        return vector(0.2 if share >= 50 else 0.001, revision="digits-predictor-00002")

    with answering(answer) as url:
        asked = {"url": url, "query": "errors", "max": 0.01}
        with pytest.raises(NotPromotedError, match=r"0\.2 \{revision=.*above the limit of 0\.01"):
            world.promote(prometheus=asked, soak=0.05)
    assert world.cluster.spec_of_user() == before
    shares = [shares.get(world.uri("new"), 0) for shares in world.cluster.history]
    assert (max(shares), shares[-1]) == (50, 0)


@pytest.mark.parametrize(("no_data", "promoted"), [("fail", False), ("pass", True)])
def test_no_data_fails_unless_it_is_said_to_pass(
    world: World, no_data: str, promoted: bool
) -> None:
    with answering(lambda *_: vector()) as url:
        asked = {"url": url, "query": "errors", "max": 0.01, "no_data": no_data}
        if promoted:
            assert world.promote(prometheus=asked, soak=0.0).outcome == "promoted"
        else:
            with pytest.raises(NotPromotedError, match=r"gave no values at 10%.*is restored"):
                world.promote(prometheus=asked, soak=0.0)


def test_a_prometheus_that_goes_away_rolls_back(world: World, monkeypatch) -> None:
    monkeypatch.setattr("lrf_core.serving.prometheus.tenacity.nap.time.sleep", lambda s: None)
    before = copy.deepcopy(world.cluster.spec_of_user())

    def answer(query: str, headers: Any) -> Any:
        if world.cluster.shares().get(world.uri("new")):
            raise ConnectionResetError
        return vector(0.0)

    with answering(answer) as url:
        asked = {"url": url, "query": "errors", "max": 0.01}
        with pytest.raises(NotPromotedError, match="cannot be reached"):
            world.promote(prometheus=asked, soak=0.05)
    assert world.cluster.spec_of_user() == before


def test_a_prometheus_that_is_not_there_is_found_before_anything_is_changed(
    world: World, monkeypatch
) -> None:
    monkeypatch.setattr("lrf_core.serving.prometheus.tenacity.nap.time.sleep", lambda s: None)
    before = copy.deepcopy(world.cluster.spec_of_user())
    asked = {"url": "http://127.0.0.1:9", "query": "errors", "max": 0.01}
    with pytest.raises(QueryError, match="cannot be reached"):
        world.promote(prometheus=asked)
    assert world.cluster.spec_of_user() == before
    assert world.cluster.requests == []


def scraping(target: int) -> dict[str, Any]:
    """Prometheus' configuration to scrape a port five times a second."""
    return {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
        "scrape_configs": [
            {"job_name": "kserve", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }


def test_prometheus_itself_decides(world: World, tmp_path: Path) -> None:
    registry = prometheus_client.CollectorRegistry()
    requests = prometheus_client.Counter(
        "revision_app_request_count", "Requests.", ("revision_name", "code"), registry=registry
    )
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    broken = False
    stopped = threading.Event()

    def traffic() -> None:
        while not stopped.wait(0.05):
            share = world.cluster.shares().get(world.uri("new"), 0)
            if share:
                code = "500" if broken else "200"
                requests.labels("digits-predictor-00002", code).inc(share)

    users = threading.Thread(target=traffic)
    users.start()
    query = (
        'sum(rate(revision_app_request_count_total{revision_name="$revision",code=~"5.."}[2s])) '
        'or sum(rate(revision_app_request_count_total{revision_name="$revision"}[2s])) * 0'
    )
    try:
        with prometheus(tmp_path, scraping(server.server_port)) as url:
            deadline = time.monotonic() + 60
            while metric(url, "up == 1").check() is None:
                assert time.monotonic() < deadline, "prometheus does not scrape"
                time.sleep(0.2)  # the first scrape takes some seconds
            asked = {"url": url, "query": query, "max": 0.0}
            broken = True
            with pytest.raises(NotPromotedError, match="above the limit of 0"):
                world.promote(prometheus=asked, soak=3.0, canary=[10, 100])
            broken = False
            time.sleep(2.5)  # until the last errors are out of the window
            requests.clear()
            world.restart()
            done = world.promote(prometheus=asked, soak=1.5, canary=[10, 100])
            assert done.outcome == "promoted"
            watched = [step.detail for step in done.steps if step.name.startswith("watch")]
            assert watched == ["0", "0"]
    finally:
        stopped.set()
        users.join()
        server.shutdown()
        server.server_close()
        thread.join()
