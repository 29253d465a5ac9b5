"""A user's override of the gate: possible, recorded, never silent, and not for everything."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lrf_core.artifacts import Lineage, Override, Verdict
from lrf_core.errors import PublishRefusedError, SpecError
from lrf_core.spec import OverrideSpec
from lrf_core.stages.refuse import check_verdict_follows_from_numbers

_logger = logging.getLogger("lrf")

# What no person can let through: a model that gives no usable answers, or that is not the one that
# was judged. Each must have been asked and have passed.
NEVER_OVERRIDDEN = ("same_output_shape", "finite_outputs", "digest_unchanged")


def override_of(verdict: Verdict, *, by: str, reason: str, checks: Sequence[str] = ()) -> Override:
    """A user's decision to publish a model although checks of its verdict failed.

    Args:
        verdict: on the candidate to publish.
        by: who decides.
        reason: why, for those who meet the release later.
        checks: names of the checks that may fail; none stands for all that did.

    Raises:
        SpecError: nobody or no reason is named, a check is named that did not fail, or the model
            passed.
        PublishRefusedError: the verdict was altered, another check failed, or one that cannot be
            overridden: `NEVER_OVERRIDDEN`, and the drop if it was not measured at all.
    """
    by, reason = " ".join(by.split()), " ".join(reason.split())
    if not by or not reason:
        raise SpecError("an override needs a name and a reason; say who decides, and why")
    check_verdict_follows_from_numbers(verdict)
    if verdict.passed:
        raise SpecError("the model passed the gate; publish it without an override")
    failed = {check.name: check for check in verdict.failed()}
    unknown = [name for name in checks if name not in failed]
    if unknown:
        raise SpecError(
            f"{', '.join(unknown)}: no check of this name failed; failed: {', '.join(failed)}"
        )
    _refuse_never_overridden(verdict)
    others = [name for name in failed if checks and name not in checks]
    if others:
        raise PublishRefusedError(
            f"model {verdict.candidate_digest[:12]} also failed {', '.join(others)}, which the "
            "override does not name; nothing is published"
        )
    return Override(
        lineage=Lineage(
            inputs={"model": verdict.candidate_digest, "verdict": verdict.digest()},
            settings={"checks": list(checks)},
            parent=verdict.digest(),
        ),
        by=by,
        reason=reason,
        checks=tuple(failed.values()),
        candidate_digest=verdict.candidate_digest,
        verdict_digest=verdict.digest(),
    )


def requested_override(verdict: Verdict, asked: OverrideSpec | None) -> Override | None:
    """The override that a spec asks for; None if there is none, or the model passed.

    An override is about one model. If the candidate is another one, it is not applied, and a
    warning says so.

    Raises:
        SpecError, PublishRefusedError: as `override_of` does.
    """
    if asked is None or verdict.passed:
        return None
    if not verdict.candidate_digest.startswith(asked.model):
        _logger.warning(
            "publish.override is about model %s, this candidate is %s: it is not applied",
            asked.model[:12],
            verdict.candidate_digest[:12],
        )
        return None
    return override_of(verdict, by=asked.by, reason=asked.reason, checks=asked.checks)


def check_override_matches(verdict: Verdict, override: Override) -> None:
    """Raise PublishRefusedError unless the override is about exactly what failed in the verdict."""
    if override.verdict_digest != verdict.digest():
        raise PublishRefusedError(
            f"the override is about verdict {override.verdict_digest[:12]}, this is "
            f"{verdict.digest()[:12]}; decide again on the verdict at hand"
        )
    names = [check.name for check in override.checks]
    if names:
        again = override_of(verdict, by=override.by, reason=override.reason, checks=names)
    if not names or again.checks != override.checks:
        raise PublishRefusedError("the override was altered; decide again on the verdict at hand")


def _refuse_never_overridden(verdict: Verdict) -> None:
    passed = {check.name for check in verdict.checks if check.passed}
    hopeless = [name for name in NEVER_OVERRIDDEN if name not in passed]
    hopeless += [
        check.name
        for check in verdict.failed()
        if check.name in ("accuracy_drop", "metric_drop") and check.measured is None
    ]
    if hopeless or verdict.accuracy_drop is None:
        reason = ", ".join(hopeless) or "its answers were never compared"
        raise PublishRefusedError(
            f"model {verdict.candidate_digest[:12]} cannot be published by an override: {reason}"
        )
