"""What a run writes for readers when its plans are judged: the lineage and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrf_core.artifacts import (
    Analysis,
    Artifact,
    DesignSpace,
    DropCalibration,
    Override,
    Plan,
    PlanOutcome,
    Release,
    Verdict,
)
from lrf_core.files.atomic import write_atomically
from lrf_core.report import plan_rows, write_report


def write_results(
    lineage: Path,
    report: Path,
    analysis: Analysis,
    space: DesignSpace,
    outcomes: Sequence[PlanOutcome],
    selected: int,
    override: Override | None = None,
) -> None:
    """Write the lineage and the report of the selected plan; the report compares all plans."""
    outcome = outcomes[selected]
    write_lineage(lineage, analysis, space, outcome, override=override)
    write_report(
        report,
        analysis=analysis,
        plan=outcome.plan,
        finetune=outcome.finetune,
        verdict=outcome.verdict,
        override=override,
        plans=plan_rows(outcomes, selected),
    )


def write_lineage(
    path: Path,
    analysis: Analysis,
    space: DesignSpace,
    outcome: PlanOutcome,
    *,
    override: Override | None = None,
    release: Release | None = None,
) -> Path:
    """Write the lineage of a run's artifacts, in the order they were made, as one JSON file.

    The verdict's entry compares the drop that its plan was chosen by with the measured one.
    """
    plan = outcome.plan
    artifacts = (analysis, space, plan, outcome.finetune, outcome.verdict, override, release)
    content = [_entry(artifact, plan) for artifact in artifacts if artifact]
    write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
    return path


def _entry(artifact: Artifact | DesignSpace, plan: Plan) -> dict[str, Any]:
    entry = {"artifact": type(artifact).__name__, **artifact.lineage.model_dump(mode="json")}
    if isinstance(artifact, Verdict) and plan.calibration is not None:
        entry["prediction"] = _prediction(plan, plan.calibration, artifact)
    return entry


def _prediction(plan: Plan, calibration: DropCalibration, verdict: Verdict) -> dict[str, Any]:
    """Accuracy drops in points: before fine-tuning on training samples, after it on test samples.

    `measured_drop` is null if the gate could not compare the answers.
    """
    return {
        "predicted_drop_before_finetuning": plan.predicted_drop,
        "measured_drop_before_finetuning": calibration.measured_drop,
        "standard_error": calibration.standard_error,
        "expected_drop": calibration.expected_drop,
        "measured_drop": verdict.accuracy_drop,
    }
