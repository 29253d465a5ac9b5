"""A server that speaks as much of the Kubeflow Pipelines API (v2beta1) as is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from json_api import Asked, json_api

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

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.tokens.add(asked.headers.get("Authorization"))
        if asked.method == "POST":
            self.created.append(asked.body)
            return self.status, self.run(len(self.created) - 1)
        if asked.path.endswith("/healthz"):
            return self.status, {"multi_user": False}
        if asked.path.endswith("/experiments"):
            return self.status, {"experiments": [{"experiment_id": "e1", "display_name": "lrf"}]}
        if asked.path.endswith("/runs"):
            return self.status, {"runs": self.named(asked.query)}
        found = self.look(asked.path.rpartition("/")[2])
        return (self.status, found) if found else (404, {"message": "no such run"})

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
    api = Api()
    with json_api(api.answer) as api.host:
        yield api


def run_in(state: str, *details: dict[str, Any], **tasks: str) -> dict[str, Any]:
    """A run in a state; with tasks by name and state, or with their whole details."""
    named = [{"display_name": name, "state": each} for name, each in tasks.items()]
    return {"state": state, "run_details": {"task_details": [*named, *details]}}
