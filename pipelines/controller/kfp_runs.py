"""Runs in Kubeflow Pipelines, each found by its name.

The API creates a second run of the same name without a word. So it is looked for before, and after:
of several, the oldest counts, and the others are terminated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import kfp
import kfp_server_api
from pydantic import ValidationError

from lrf_core.artifacts import Release, Verdict
from lrf_core.errors import StorageError
from lrf_core.spec import make_spec
from lrf_core.storage import open_store
from pipelines.compress import NAME
from pipelines.controller.engine import Ended, Work
from pipelines.controller.request import Result
from pipelines.controller.results import result_of
from pipelines.controller.settings import PipelinesSettings
from pipelines.submit import connected, submit

_ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
_PAGE = 100


@dataclass(frozen=True)
class KfpRuns:
    """An engine. A run's id is that of Kubeflow Pipelines."""

    settings: PipelinesSettings
    # Longer than any request to the API takes.
    settle_s: float = 90.0

    def start(self, work: Work) -> str:
        settings = self.settings
        if (found := self._oldest(work.name)) is not None:
            return found
        submit(
            make_spec(work.settings),
            settings.host,
            settings.namespace,
            settings.experiment,
            run_name=work.name,
            pipeline_root=settings.root,
        )
        found = self._oldest(work.name)
        if found is None:
            raise StorageError(f"{settings.host} does not list the run {work.name} it created")
        return found

    def poll(self, run_id: str) -> Ended | None:
        with connected(self.settings.host, self.settings.namespace) as client:
            try:
                run = client.get_run(run_id)
            except kfp_server_api.ApiException as error:
                if error.status != 404:
                    raise
                return Ended("failed", f"the run {run_id} was removed from Kubeflow Pipelines")
        if run.state not in _ENDED:
            return None
        return self._ended(run_id, run)

    def page_of(self, run_id: str) -> str:
        """The page of a run, for people."""
        return f"{self.settings.host.rstrip('/')}/#/runs/details/{run_id}"

    def _oldest(self, name: str) -> str | None:
        """The run of this name that counts; others are terminated."""
        with connected(self.settings.host, self.settings.namespace) as client:
            found = self._named(client, name)
            for other in found[1:]:
                if other.state not in (*_ENDED, "CANCELING"):
                    client.terminate_run(other.run_id)
        return found[0].run_id if found else None

    def _named(self, client: kfp.Client, name: str) -> list[Any]:
        named = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        found: list[Any] = []
        token = ""
        while True:
            page = client.list_runs(
                page_token=token,
                page_size=_PAGE,
                namespace=self.settings.namespace,
                filter=json.dumps({"predicates": [named]}),
            )
            found += [run for run in page.runs or [] if run.display_name == name]
            token = page.next_page_token or ""
            if not token:
                return sorted(found, key=lambda run: (run.created_at, run.run_id))

    def _ended(self, run_id: str, run: Any) -> Ended:
        page = self.page_of(run_id)
        steps = (run.run_details.task_details or []) if run.run_details else []
        states = {(step.display_name or "").lower(): step.state for step in steps}
        if run.state != "SUCCEEDED":
            failed = sorted(name for name, state in states.items() if state == "FAILED")
            where = f" in {', '.join(failed)}" if failed else ""
            reason = f"the run {run.state.lower()}{where}; the step's log says why: {page}"
            return Ended("failed", reason, Result(report=page))
        if not states:
            return Ended("failed", f"the API does not list the steps of the run; see {page}")
        result = self._result(run_id, page)
        if states.get("publish") == "SUCCEEDED":
            return Ended("published", result=result)
        checks = "; ".join(result.failed_checks) or f"the run's report says why: {page}"
        return Ended("refused", f"the gate said no: {checks}", result)

    def _result(self, run_id: str, page: str) -> Result:
        """From what the steps left below `root`, where that is known.

        Raises:
            StorageError: it cannot be read now.
        """
        if self.settings.root is None:
            return Result(report=page)
        store = open_store(self.settings.root)
        verdict = release = None
        for key in sorted(store.list(f"{NAME}/{run_id}/")):
            step, _, made = key.removeprefix(f"{NAME}/{run_id}/").partition("/")
            made = made.rpartition("/")[2]
            try:
                if step.startswith("validate") and made == "verdict":
                    verdict = Verdict.model_validate_json(store.get(key))
                elif step.startswith("publish") and made == "release":
                    release = Release.model_validate_json(store.get(key))
            except ValidationError:
                continue  # of another version; the run's page shows it
        return result_of(verdict, release, page)
