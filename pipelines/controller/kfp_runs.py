"""Runs in Kubeflow Pipelines, each found by its name.

The API creates a second run of the same name without a word. So it is looked for before, and after:
of several, the oldest counts, and the others are terminated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import kfp

from lrf_core.errors import EXIT_BAD_INPUT, ArtifactError, StorageError
from lrf_core.spec import make_spec
from pipelines.controller.engine import RunEnd, RunRequest, result_of
from pipelines.controller.request import Result
from pipelines.controller.settings import PipelinesSettings
from pipelines.follow import ENDED, state_of
from pipelines.kfp_api import NoSuchRunError, Submitted, connected
from pipelines.results import read_results
from pipelines.submit import attach, submit

# Between two of the few attempts to reach the API: others wait for this turn.
_PATIENCE_S = 0.2
_PAGE = 100


@dataclass(frozen=True)
class KfpRuns:
    """An engine. A run's id is that of Kubeflow Pipelines."""

    settings: PipelinesSettings
    # Longer than any request to the API takes.
    takeover_delay_s: float = 90.0

    def start(self, work: RunRequest) -> str:
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

    def poll(self, run_id: str) -> RunEnd | None:
        settings = self.settings
        submitted = attach(run_id, settings.host, settings.namespace)
        try:
            state = state_of(submitted, _PATIENCE_S)
        except NoSuchRunError:
            return RunEnd("failed", f"the run {run_id} was removed from Kubeflow Pipelines")
        if state.phase in ("waiting", "running"):
            return None
        page = submitted.url
        if state.phase == "failed":
            hopeless = state.exit_code == EXIT_BAD_INPUT
            outcome: Literal["bad_input", "failed"] = "bad_input" if hopeless else "failed"
            return RunEnd(outcome, state.detail, Result(report=page))
        result = _result(submitted)
        if state.phase == "published":
            return RunEnd("published", result=result)
        checks = "; ".join(result.failed_checks) or f"the run's report says why: {page}"
        return RunEnd("refused", f"the candidate failed the gate: {checks}", result)

    def _oldest(self, name: str) -> str | None:
        """The run of this name that counts; others are terminated."""
        with connected(self.settings.host, self.settings.namespace) as client:
            found = self._named(client, name)
            for other in found[1:]:
                if other.state not in (*ENDED, "CANCELING"):
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


def _result(submitted: Submitted) -> Result:
    """From what the steps left below the pipeline root, where the run has one.

    Raises:
        ClusterError, StorageError: it cannot be read now.
    """
    try:
        found = read_results(submitted)
    except ArtifactError:
        return Result(report=submitted.url)  # of another version; the run's page shows it
    return result_of(found.verdict, found.release, submitted.url)
