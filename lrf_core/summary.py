"""What a person reads at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich.console

from lrf_core.outputs import Run
from lrf_core.report import plan_rows
from lrf_core.report.tables import (
    before_after_table,
    checks_table,
    layers_table,
    plans_table,
    published,
)

# Wide enough for the tables where standard output is a file or a pipe.
_PLAIN_WIDTH = 100


def print_run(run: Run) -> None:
    """Print the tables of a whole run and where its results lie."""
    console = _console()
    if rows := plan_rows(run.outcomes, run.picked):
        console.print(plans_table(rows))
    console.print(layers_table(run.plan, run.analysis))
    console.print(before_after_table(run.verdict, run.plan))
    console.print(checks_table(run.verdict))
    failed = [check.name for check in run.verdict.failed()]
    if run.release:
        console.print(published(run.release))
        console.print("release:", run.release.location, soft_wrap=True)
    else:
        console.print("[bold red]not passed[/]:", ", ".join(failed), "- nothing was published")
    console.print("report: ", str(run.outputs.report), soft_wrap=True)


def run_as_json(run: Run) -> dict[str, Any]:
    """The same for machines; `plan` and `verdict` are of the plan that was picked."""
    return {
        "passed": run.verdict.passed,
        "out": str(run.outputs.folder),
        "report": str(run.outputs.report),
        "plan": run.plan.model_dump(mode="json"),
        "verdict": run.verdict.model_dump(mode="json"),
        "plans": [
            {
                "number": outcome.plan.number,
                "picked": place == run.picked,
                "plan": outcome.plan.model_dump(mode="json"),
                "finetune": outcome.finetune.model_dump(mode="json"),
                "verdict": outcome.verdict.model_dump(mode="json"),
            }
            for place, outcome in enumerate(run.outcomes)
        ],
        "release": run.release.model_dump(mode="json") if run.release else None,
    }


def print_for_people(content: Any, where: str | Path) -> None:
    """Print a table or a line, and where the artifact lies."""
    console = _console()
    console.print(content)
    console.print("written to", str(where), soft_wrap=True)


def print_table(content: Any) -> None:
    """Print a table or several."""
    _console().print(content)


def _console() -> rich.console.Console:
    console = rich.console.Console(highlight=False)
    if not console.is_terminal:
        console = rich.console.Console(highlight=False, width=_PLAIN_WIDTH)
    return console
