"""Submitting, to a server that speaks as much of the Kubeflow Pipelines API as is used."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from lrf_core.errors import LrfError, SpecError
from lrf_core.spec import Spec
from pipelines.submit import TOKEN, ClusterError, follow, submit

SPEC = Spec.model_validate(
    {"model": "/data/m.keras", "data": "/data/d.npz", "publish": {"to": "s3://bucket/models"}}
)
RUN = "0b7c"


@dataclass
class Api:
    """What the server was asked, and what it is to answer."""

    host: str = ""
    status: int = 200
    states: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@pytest.fixture
def api() -> Iterator[Api]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.tokens.add(self.headers.get("Authorization"))
            if self.path.endswith("/healthz"):
                self.answer({"multi_user": False})
            elif "/experiments" in self.path:
                self.answer({"experiments": [{"experiment_id": "e1", "display_name": "lrf"}]})
            else:
                self.answer(state.states.pop(0) if len(state.states) > 1 else state.states[0])

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.created.append(json.loads(content))
            self.answer({"run_id": RUN})

        def answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def run_in(state: str, **tasks: str) -> dict[str, Any]:
    details = [{"display_name": name, "state": each} for name, each in tasks.items()]
    return {"run_id": RUN, "state": state, "run_details": {"task_details": details}}


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


def test_a_run_is_created_with_the_spec_and_the_pipeline(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN, "the-token")
    submitted = submit(SPEC, api.host + "/", None, "lrf")
    [created] = api.created
    assert created["runtime_config"]["parameters"] == {"spec": SPEC.model_dump_json()}
    assert created["pipeline_spec"]["pipelineInfo"]["name"] == "lrf-compress"
    assert created["experiment_id"] == "e1"
    assert api.tokens == {"Bearer the-token"}
    assert "the-token" not in json.dumps(created)
    assert submitted.url == f"{api.host}/#/runs/details/{RUN}"
    assert capsys.readouterr().out == ""


def test_a_run_that_published_has_passed(api: Api) -> None:
    api.states = [
        run_in("RUNNING", analyze="RUNNING"),
        run_in("RUNNING", analyze="SUCCEEDED", explore="RUNNING"),
        run_in("SUCCEEDED", analyze="SUCCEEDED", explore="SUCCEEDED", publish="SUCCEEDED"),
    ]
    said: list[str] = []
    assert follow(submit(SPEC, api.host, None, "lrf"), said.append, poll_s=0.01)
    assert said == [
        "analyze: running",
        "analyze: succeeded",
        "explore: running",
        "explore: succeeded",
        "publish: succeeded",
    ]


@pytest.mark.parametrize("publish", [{}, {"publish": "SKIPPED"}])
def test_a_run_that_did_not_publish_has_not(api: Api, publish: dict[str, str]) -> None:
    api.states = [run_in("SUCCEEDED", validate="SUCCEEDED", **publish)]
    assert not follow(submit(SPEC, api.host, None, "lrf"), lambda line: None, poll_s=0.01)


def test_a_run_that_failed_names_the_step(api: Api) -> None:
    api.states = [run_in("FAILED", analyze="SUCCEEDED", explore="FAILED")]
    with pytest.raises(LrfError, match=r"failed in explore; .*/runs/details/0b7c") as raised:
        follow(submit(SPEC, api.host, None, "lrf"), lambda line: None, poll_s=0.01)
    assert raised.value.exit_code == 1


def test_a_success_without_steps_is_no_pass(api: Api) -> None:
    api.states = [{"run_id": RUN, "state": "SUCCEEDED"}]
    with pytest.raises(LrfError, match="does not list its steps"):
        follow(submit(SPEC, api.host, None, "lrf"), lambda line: None, poll_s=0.01)


def test_a_host_that_is_down_is_bad_input() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ClusterError, match=f"cannot reach .*127.0.0.1:{port}.*refused") as raised:
        submit(SPEC, f"http://127.0.0.1:{port}", None, "lrf")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(("status", "told"), [(401, TOKEN), (404, "check --host")])
def test_a_host_that_refuses_is_bad_input(api: Api, status: int, told: str) -> None:
    api.status = status
    with pytest.raises(ClusterError, match=told):
        submit(SPEC, api.host, None, "lrf")


def test_a_host_needs_a_scheme() -> None:
    with pytest.raises(ClusterError, match="must start with http"):
        submit(SPEC, "localhost:8888", None, "lrf")


def test_a_cluster_run_must_say_where_to_publish() -> None:
    spec = SPEC.model_copy(update={"publish": Spec.model_fields["publish"].default})
    with pytest.raises(SpecError, match=r"publish\.to"):
        submit(spec, "http://localhost:1", None, "lrf")
