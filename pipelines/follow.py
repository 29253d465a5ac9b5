"""Follow a run on a cluster to its verdict."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrf_core.errors import EXIT_BAD_INPUT, EXIT_FAILURE
from lrf_core.spec.cluster import STAGE_NAMES
from pipelines.kfp_api import POLL_S, RunError, Submitted, poll_with_retries

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")

_EXIT_CODE = re.compile(r"exit (?:code|status):? (\d+)")


@dataclass(frozen=True)
class RunState:
    """How far a run has come.

    Attributes:
        phase: published, refused (the candidate failed the gate) and failed are final.
        detail: what failed, and where to look.
        exit_code: of the step that failed, where the API tells it; else 1.
    """

    phase: Literal["waiting", "running", "published", "refused", "failed"]
    detail: str = ""
    exit_code: int = EXIT_FAILURE


def state_of(submitted: Submitted, poll_s: float = POLL_S) -> RunState:
    """Look once at a run.

    Raises:
        PipelineApiError: the API stopped answering, or knows no such run.
    """
    return _state(_run(submitted, poll_s), submitted.url)


def follow(submitted: Submitted, say: Callable[[str], None], poll_s: float = POLL_S) -> bool:
    """Wait for a run to end; whether the candidate passed the gate and was published.

    Args:
        say: called with a line whenever the state of a step changes.

    Raises:
        PipelineApiError: the API stopped answering, or knows no such run.
        RunError: the run failed or was canceled.
    """
    told: dict[str, str] = {}
    while True:
        run = _run(submitted, poll_s)
        for stage, line in _progress(run).items():
            if told.get(stage) != line:
                say(f"{stage}: {line}")
                told[stage] = line
        state = _state(run, submitted.url)
        if state.phase == "failed":
            raise RunError(state.detail, state.exit_code)
        if run.state in ENDED:
            return state.phase == "published"
        time.sleep(poll_s)


def _run(submitted: Submitted, poll_s: float) -> Any:
    return poll_with_retries(
        lambda: submitted.client.get_run(submitted.run_id), submitted.url, poll_s
    )


def _state(run: Any, url: str) -> RunState:
    tasks = _tasks(run)
    if run.state not in ENDED:
        begun = any(task.state not in (None, "PENDING") for each in tasks.values() for task in each)
        return RunState("running" if begun or run.state == "RUNNING" else "waiting")
    if run.state != "SUCCEEDED":
        failed = [stage for stage, each in tasks.items() if any(t.state == "FAILED" for t in each)]
        where = f" in {', '.join(failed)}" if failed else ""
        told = f"the run {run.state.lower()}{where}; the step's log says why: {url}"
        return RunState("failed", told, _exit_code(run))
    if not tasks:
        told = f"the run succeeded, but the API does not list its steps; see {url}"
        return RunState("failed", told)
    published = any(task.state == "SUCCEEDED" for task in tasks.get("publish", ()))
    return RunState("published" if published else "refused")


def _details(run: Any) -> Sequence[Any]:
    return (run.run_details.task_details or ()) if run.run_details else ()


def _tasks(run: Any) -> dict[str, list[Any]]:
    """Tasks of each stage that has some, in the order of the pipeline: one for each shard and
    plan."""
    found = defaultdict(list)
    for task in _details(run):
        found[(task.display_name or "").lower()].append(task)
    return {stage: found[stage] for stage in STAGE_NAMES if stage in found}


def _progress(run: Any) -> dict[str, str]:
    return {
        stage: line
        for stage, tasks in _tasks(run).items()
        if (line := _line([task for task in tasks if task.state]))
    }


def _line(tasks: Sequence[Any]) -> str:
    """Where the tasks of one stage are: "running", "1 of 2 succeeded", "succeeded in 4m 10s"."""
    states = [task.state.lower() for task in tasks]
    if not states:
        return ""
    if len({*states}) > 1:
        counted = (f"{states.count(state)} {state}" for state in sorted({*states}))
        return f"of {len(states)}: {', '.join(counted)}"
    several = f" (all {len(states)})" if len(states) > 1 else ""
    return f"{states[0]}{several}{_lasted(tasks)}"


def _lasted(tasks: Sequence[Any]) -> str:
    starts = [task.start_time for task in tasks if task.start_time]
    ends = [task.end_time for task in tasks if task.end_time]
    if not starts or len(ends) < len(tasks):
        return ""
    seconds = max(0, round((max(ends) - min(starts)).total_seconds()))
    return f" in {seconds // 60}m {seconds % 60}s"


def _exit_code(run: Any) -> int:
    """2 where a step that failed says so: not every version of the API tells."""
    for task in _details(run):
        message = getattr(task.error, "message", None) or ""
        found = _EXIT_CODE.search(message)
        if task.state == "FAILED" and found and int(found[1]) == EXIT_BAD_INPUT:
            return EXIT_BAD_INPUT
    return EXIT_FAILURE
