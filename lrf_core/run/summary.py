"""What a terminal shows at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrf_core.console.terminal import print_table
from lrf_core.report import plan_rows
from lrf_core.report.tables import (
    before_after_table,
    checks_table,
    layers_table,
    not_published,
    plans_table,
    published,
)
from lrf_core.run.workflow import RunResult


def print_run(run: RunResult) -> None:
    """Print the tables of a whole run and where its results lie."""
    if rows := plan_rows(run.judgement.outcomes, run.judgement.selected):
        print_table(plans_table(rows))
    print_table(layers_table(run.plan, run.analysis))
    print_table(before_after_table(run.verdict, run.plan))
    print_table(checks_table(run.verdict))
    if run.release:
        print_table(published(run.release))
        print_table("release:", run.release.location)
    else:
        print_table(not_published(run.verdict))
    print_table("report: ", str(run.outputs.report))


def run_as_json(run: RunResult) -> dict[str, Any]:
    """The same for machines; `plan` and `verdict` are those of the selected plan."""
    return {
        "passed": run.verdict.passed,
        "out": str(run.outputs.folder),
        "report": str(run.outputs.report),
        "plan": run.plan.model_dump(mode="json"),
        "verdict": run.verdict.model_dump(mode="json"),
        "plans": [
            {
                "number": outcome.plan.number,
                "picked": place == run.judgement.selected,
                "plan": outcome.plan.model_dump(mode="json"),
                "finetune": outcome.finetune.model_dump(mode="json"),
                "verdict": outcome.verdict.model_dump(mode="json"),
            }
            for place, outcome in enumerate(run.judgement.outcomes)
        ],
        "release": run.release.model_dump(mode="json") if run.release else None,
    }


def print_result(content: Any, place: str | Path) -> None:
    """Print a table or a line, and where the artifact lies."""
    print_table(content)
    print_table("written to", str(place))
