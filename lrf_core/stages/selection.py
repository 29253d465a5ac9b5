"""Several candidates before one gate: judge each, and take the smallest that passes."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from lrf_core.artifacts import Verdict
from lrf_core.data import Data
from lrf_core.spec import GateSpec
from lrf_core.stages.validate import validate


def validate_all(
    baseline: keras.Model,
    candidates: Sequence[keras.Model],
    data: Data,
    *,
    gate: GateSpec,
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """The verdict on each candidate, in order; arguments and errors are those of `validate`."""
    return tuple(
        validate(baseline, candidate, data, gate=gate, seed=seed) for candidate in candidates
    )


def smallest_passing(verdicts: Sequence[Verdict]) -> int | None:
    """Which verdict that passed is of the smallest candidate: fewest parameters, of equals fewest
    multiply-adds, then bytes. None where none passed."""
    passed = [number for number, verdict in enumerate(verdicts) if verdict.passed]
    return min(passed, key=lambda number: _size(verdicts[number]), default=None)


def _size(verdict: Verdict) -> tuple[int, int, int]:
    measures = verdict.candidate
    return measures.cost.params, measures.cost.macs, measures.weight_bytes
