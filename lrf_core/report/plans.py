"""Several plans beside each other, as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lrf_core.artifacts import Plan, PlanOutcome, Verdict
from lrf_core.report import text


@dataclass(frozen=True)
class PlanRow:
    """One plan in words.

    Attributes:
        params, macs: what is kept of the whole model.
        expected: change of accuracy predicted after fine-tuning, as far as it was.
        came_out: change of accuracy on test samples.
        answer: of the gate: "passed", or the first check that failed.
        picked: whether the run is about this plan.
    """

    number: int
    params: str
    macs: str
    expected: str
    came_out: str
    answer: str
    passed: bool
    picked: bool


def plan_rows(outcomes: Sequence[PlanOutcome], selected: int) -> tuple[PlanRow, ...]:
    """A row for each plan, where several were judged; nothing if there was one."""
    if len(outcomes) < 2:
        return ()
    return tuple(
        _row(outcome.plan, outcome.verdict, picked=place == selected)
        for place, outcome in enumerate(outcomes)
    )


def unjudged_rows(plans: Iterable[Plan]) -> tuple[PlanRow, ...]:
    """A row for each plan that is yet to be trained and judged."""
    return tuple(_row(plan, None, picked=False) for plan in plans)


def _row(plan: Plan, verdict: Verdict | None, *, picked: bool) -> PlanRow:
    calibration = plan.calibration
    return PlanRow(
        number=plan.number,
        params=_kept(plan.before.params, plan.after.params),
        macs=_kept(plan.before.macs, plan.after.macs),
        expected=text.points(-calibration.expected_drop) if calibration else "-",
        came_out=text.points_lost(verdict) if verdict else "-",
        answer=_answer(verdict) if verdict else "-",
        passed=verdict is not None and verdict.passed,
        picked=picked,
    )


def _kept(before: int, after: int) -> str:
    """In percent, finer than of a single model: plans may be near each other."""
    return f"{after / before:.1%}" if before else "-"


def _answer(verdict: Verdict) -> str:
    failed = [text.check_title(check) for check in verdict.checks if not check.passed]
    return failed[0] if failed else "passed"
