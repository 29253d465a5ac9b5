"""What a run writes for people when all its plans are judged: the lineage and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lrf_core.artifacts import Analysis, DesignSpace, Override, Release
from lrf_core.report import plan_rows, write_report
from lrf_core.run.outputs import Outcome, write_lineage


def write_results(
    lineage: Path,
    report: Path,
    analysis: Analysis,
    space: DesignSpace,
    outcomes: Sequence[Outcome],
    picked: int,
    override: Override | None = None,
) -> None:
    """Write the lineage and the report of the plan that was picked; the report compares all."""
    shown = outcomes[picked]
    write_whole_lineage(lineage, analysis, space, shown, override)
    write_report(
        report,
        analysis=analysis,
        plan=shown.plan,
        finetune=shown.finetune,
        verdict=shown.verdict,
        override=override,
        plans=plan_rows(outcomes, picked),
    )


def write_whole_lineage(
    lineage: Path,
    analysis: Analysis,
    space: DesignSpace,
    shown: Outcome,
    override: Override | None = None,
    release: Release | None = None,
) -> None:
    """Write where each artifact comes from, from the analysis to the release if there is one."""
    made = (analysis, space, shown.plan, shown.finetune, shown.verdict, override, release)
    write_lineage(lineage, *(artifact for artifact in made if artifact))
