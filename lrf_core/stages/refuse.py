"""The rule: what goes out is what was judged, by the limits asked for, and passed."""

from __future__ import annotations

from itertools import islice

from lrf_core.artifacts import Verdict
from lrf_core.errors import PublishRefusedError
from lrf_core.gate.consistency import contradictions
from lrf_core.spec import GateSpec

_SHOWN = 3


def check_verdict_matches_model(verdict: Verdict, digest: str) -> None:
    """Raise PublishRefusedError for a verdict about another model than the one of this digest."""
    if verdict.candidate_digest != digest:
        raise PublishRefusedError(
            f"the verdict is about model {verdict.candidate_digest[:12]}, the model to publish is "
            f"{digest[:12]}; validate the model that is to be published"
        )


def check_verdict_follows_from_numbers(verdict: Verdict) -> None:
    """Raise PublishRefusedError unless all of a verdict follows from its own numbers.

    The checks due are those that the settings of the gate in it ask for; each is computed again.
    """
    check_evidence_is_there(verdict)
    assert verdict.evidence is not None  # noqa: S101 - or it was refused
    found = list(islice(contradictions(verdict, verdict.evidence), _SHOWN))
    if found:
        raise PublishRefusedError(
            f"the verdict on model {verdict.candidate_digest[:12]} was altered "
            f"({'; '.join(found)}); judge the model again"
        )


def check_evidence_is_there(verdict: Verdict) -> None:
    """Raise PublishRefusedError for a verdict without the numbers that its checks follow from."""
    if verdict.evidence is None:
        raise PublishRefusedError(
            f"the verdict on model {verdict.candidate_digest[:12]} was made by an older version of "
            "lrf, without the numbers that its checks follow from; judge the model again"
        )


def check_limits_match(verdict: Verdict, gate: GateSpec | None) -> None:
    """Raise PublishRefusedError unless a verdict was made by exactly these limits.

    Args:
        gate: `Spec.effective_gate()`; None if nobody asked for any. The confidence in it is that
            of a whole run, in a verdict as well, however many candidates it was divided among.
    """
    if gate is None:
        return
    judged, asked = verdict.lineage.settings.get("gate"), gate.model_dump(mode="json")
    if judged == asked:
        return
    judged = judged if isinstance(judged, dict) else {}
    nothing = object()
    differing = [
        f"{limit} ({judged.get(limit)} instead of {asked.get(limit)})"
        for limit in sorted({*judged, *asked})
        if judged.get(limit, nothing) != asked.get(limit, nothing)
    ]
    raise PublishRefusedError(
        f"model {verdict.candidate_digest[:12]} was judged by other limits than the spec asks for: "
        f"{', '.join(differing)}; nothing is published. Validate the model again with this spec"
    )


def check_passed(verdict: Verdict) -> None:
    """Raise PublishRefusedError for a verdict that is no pass."""
    if not verdict.passed:
        failed = ", ".join(check.name for check in verdict.failed())
        raise PublishRefusedError(
            f"model {verdict.candidate_digest[:12]} did not pass the gate (failed: {failed}); "
            "nothing is published. Lower the goal, fine-tune longer, or change the gate's limits"
        )
