"""As much of the Kubeflow Pipelines API as is used: experiments, and runs by their names."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from json_api import Asked, json_api

_RUNS = "/apis/v2beta1/runs"


@dataclass
class KfpApi:
    """Attributes:
    host: its address.
    runs: as they are answered, in the order they were created.
    after_create: called when a run was created, before that is answered.
    lose_answer: whether the next creation is done, and answered by an error.
    """

    host: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    terminated: list[str] = field(default_factory=list)
    after_create: Callable[[], None] = lambda: None
    lose_answer: bool = False
    page_size: int = 1
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def create(self, name: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        number = next(self.numbers)
        run = {
            "run_id": f"run-{number}",
            "display_name": name,
            "state": "RUNNING",
            "runtime_config": config or {},
            "created_at": f"2026-01-01T00:00:{number:02}Z",
        }
        self.runs.append(run)
        return run

    def end(self, run_id: str, state: str, **steps: str) -> None:
        details = [{"display_name": name, "state": each} for name, each in steps.items()]
        run = next(run for run in self.runs if run["run_id"] == run_id)
        run.update(state=state, run_details={"task_details": details})

    def answer(self, asked: Asked) -> tuple[int, Any]:
        path, body = asked.path, asked.body
        if path.endswith("/healthz"):
            return 200, {"multi_user": False}
        if "/experiments" in path:
            return 200, {"experiments": [{"experiment_id": "e1", "display_name": "lrf"}]}
        if found := re.fullmatch(rf"{_RUNS}/([^/:]+):terminate", path):
            self.terminated.append(found[1])
            self.end(found[1], "CANCELED")
            return 200, {}
        if asked.method == "POST" and path == _RUNS:
            self.created.append(body)
            run = self.create(body["display_name"], body["runtime_config"])
            self.after_create()
            if self.lose_answer:
                self.lose_answer = False
                return 504, {"error": "upstream request timeout"}
            return 200, run
        if path == _RUNS:
            return 200, self._listed(asked.query)
        one = [run for run in self.runs if path == f"{_RUNS}/{run['run_id']}"]
        return (200, one[0]) if one else (404, {"error": "run not found", "code": 5})

    def _listed(self, query: dict[str, list[str]]) -> dict[str, Any]:
        [predicate] = json.loads(query["filter"][0])["predicates"]
        assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
        named = [run for run in self.runs if run["display_name"] == predicate["stringValue"]]
        begin = int(query.get("page_token", ["0"])[0] or 0)
        end = begin + self.page_size
        token = str(end) if end < len(named) else ""
        # Newest first: no order is promised.
        return {"runs": named[::-1][begin:end], "next_page_token": token}


@contextmanager
def kfp_api() -> Iterator[KfpApi]:
    """The running server."""
    api = KfpApi()
    with json_api(api.answer) as api.host:
        yield api
