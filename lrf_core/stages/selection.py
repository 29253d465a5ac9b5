"""Several plans: which files belong together, and which candidate is selected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from lrf_core.artifacts import FinetuneRecord, Plan, Verdict
from lrf_core.errors import ArtifactError
from lrf_core.models.load import model_digest
from lrf_core.stages.validate import smallest_passing


def select_candidate(verdicts: Sequence[Verdict]) -> int:
    """Index of the smallest candidate that passed; if none did, of the least bad, to be shown.

    The least bad failed the fewest checks; of equals, it loses the least accuracy (last if that was
    not measured); of equals, it is the first.

    Args:
        verdicts: one or more, by the number of the plan.
    """
    smallest = smallest_passing(verdicts)
    if smallest is not None:
        return smallest
    return min(range(len(verdicts)), key=lambda number: _badness(verdicts[number]))


def by_number(
    plans: Sequence[Plan], records: Sequence[FinetuneRecord], candidates: Sequence[keras.Model]
) -> list[tuple[Plan, FinetuneRecord, keras.Model]]:
    """Each plan with its record and its candidate, by the numbers of the plans.

    They are told by their digests: what steps side by side have made may come in any order.

    Raises:
        ArtifactError: a record or a candidate does not belong to any of the plans, or is missing.
    """
    trained = {record.before_digest: record for record in records}
    models = {model_digest(candidate): candidate for candidate in candidates}
    try:
        found = [
            (plan, record, models[record.after_digest])
            for plan in sorted(plans, key=lambda plan: plan.number)
            for record in [trained[plan.factorized_digest]]
        ]
    except KeyError as error:
        raise ArtifactError(
            f"no training or candidate of model {error.args[0][:12]}, which a plan leads to; give "
            "the plans, trainings and candidates of one run"
        ) from None
    if not len(found) == len(records) == len(candidates):
        raise ArtifactError(
            f"{len(plans)} plans, {len(records)} trainings and {len(candidates)} candidates do not "
            "belong together; give one of each for every plan"
        )
    return found


def _badness(verdict: Verdict) -> tuple[int, float]:
    failed = sum(not check.passed for check in verdict.checks)
    return failed, math.inf if verdict.accuracy_drop is None else verdict.accuracy_drop
