"""A server that speaks as much of the Kubeflow Pipelines API (v2beta1) as is used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from lrf_core.spec import Spec

SPEC = Spec.model_validate(
    {"model": "/data/m.keras", "data": "/data/d.npz", "publish": {"to": "s3://bucket/models"}}
)
RUN = "0b7c"

Result = TypeVar("Result")


@dataclass
class Api:
    """What the server was asked, and what it is to answer.

    Attributes:
        states: of a run that is looked at, one after the other; the last stays.
        created: bodies of the requests that started runs; their ids are 0b7c, 0b7c-2 and so on.
    """

    host: str = ""
    status: int = 200
    states: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def run(self, place: int) -> dict[str, Any]:
        """A run as the API lists it, in its state by now."""
        started = {"run_id": RUN, "state": "PENDING", **(self.states[0] if self.states else {})}
        asked = {key: self.created[place][key] for key in ("display_name", "runtime_config")}
        return {**started, **asked, "run_id": f"{RUN}-{place + 1}" if place else RUN}

    def look(self, run_id: str) -> dict[str, Any] | None:
        """A run, whose state is another the next time."""
        for place in range(len(self.created)):
            found = self.run(place)
            if found["run_id"] == run_id:
                if len(self.states) > 1:
                    self.states.pop(0)
                return found
        return None

    def named(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Runs of the experiment that pass the filter, the latest first."""
        assert query["experiment_id"] == ["e1"]
        [predicate] = json.loads(query["filter"][0])["predicates"]
        assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
        runs = [self.run(place) for place in reversed(range(len(self.created)))]
        return [run for run in runs if run["display_name"] == predicate["stringValue"]]


def on_a_short_stack(work: Callable[..., Result], *given: Any, **named: Any) -> Result:
    """Call in a thread of its own: kfp reads the source of the whole stack, again and again, while
    it builds a pipeline, and pytest's is long."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *given, **named).result()


@contextmanager
def serving() -> Iterator[Api]:
    """A server on a free port of this machine."""
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.tokens.add(self.headers.get("Authorization"))
            url = urlsplit(self.path)
            if url.path.endswith("/healthz"):
                self.answer({"multi_user": False})
            elif url.path.endswith("/experiments"):
                self.answer({"experiments": [{"experiment_id": "e1", "display_name": "lrf"}]})
            elif url.path.endswith("/runs"):
                self.answer({"runs": state.named(parse_qs(url.query))})
            else:
                found = state.look(url.path.rpartition("/")[2])
                self.answer(found or {"message": "no such run"}, 200 if found else 404)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.created.append(json.loads(content))
            self.answer(state.run(len(state.created) - 1))

        def answer(self, content: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(state.status if status == 200 else status)
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
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_in(state: str, *details: dict[str, Any], **tasks: str) -> dict[str, Any]:
    """A run in a state; with tasks by name and state, or with their whole details."""
    named = [{"display_name": name, "state": each} for name, each in tasks.items()]
    return {"state": state, "run_details": {"task_details": [*named, *details]}}
