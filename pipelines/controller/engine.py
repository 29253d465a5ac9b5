"""What starts runs and says how they ended: on this machine, or in Kubeflow Pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lrf_core.artifacts import Release, Verdict
from lrf_core.artifacts.release import ReleaseSummary
from pipelines.controller.request import Result


@dataclass(frozen=True)
class RunRequest:
    """A run to start. `settings` is a spec without `out`."""

    address: str
    attempt: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called, and found by: one name, one run."""
        return f"lrf-{self.address[:24]}-{self.attempt}"


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        outcome: `published`; `refused`: the candidate failed the gate; `bad_input`: the same run
            would fail again; `failed`: it may pass.
        reason: one line; empty after a success.
    """

    outcome: Literal["published", "refused", "bad_input", "failed"]
    reason: str = ""
    result: Result | None = None


class Engine(Protocol):
    """Starts runs. Every method raises LrfError when it cannot tell."""

    @property
    def takeover_delay_s(self) -> float:
        """How long a claim by another controller must stand still before the run may be started
        in its place, seconds; 0 if starting twice at the same moment makes one run."""

    def start(self, work: RunRequest) -> str:
        """Start the run of this name unless it was started ever before; returns its id."""

    def poll(self, run_id: str) -> RunEnd | None:
        """How a run ended; None while it goes on."""


def result_of(verdict: Verdict | None, release: Release | None, report: str) -> Result:
    """Metrics, checks that failed, and where the release is.

    Args:
        report: where a user reads more.
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
