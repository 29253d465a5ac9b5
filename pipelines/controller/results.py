"""What a run came to, from its verdict and its release."""

from __future__ import annotations

from lrf_core.artifacts import Release, Verdict
from lrf_core.artifacts.release import ReleaseSummary
from pipelines.controller.request import Result


def result_of(verdict: Verdict | None, release: Release | None, report: str) -> Result:
    """Metrics, checks that failed, and where the release is.

    Args:
        report: where a person reads more.
    """
    summary = release.summary if release else verdict and ReleaseSummary.of(verdict)
    values = summary.model_dump() if summary else {}
    failed = verdict.failed() if verdict else ()
    return Result(
        release=release.location if release else None,
        name=release.name if release else None,
        version=release.version if release else None,
        metrics={name: float(value) for name, value in values.items() if value is not None},
        failed_checks=tuple(
            f"{check.name} {check.measured or 'not measured'}, limit {check.limit}"
            for check in failed
        ),
        report=report,
    )
