"""A verdict by hand: what is pushed of one, without judging a model."""

from __future__ import annotations

from typing import Any

from lrf_core.artifacts import Check, Cost, Lineage, ModelMeasures, Verdict
from lrf_core.spec import GateSpec


def made_verdict(**changes: Any) -> Verdict:
    """Passed, with a drop of 0.6 points of at most 1."""
    before = ModelMeasures(
        cost=Cost(params=1000, macs=50_000),
        weight_bytes=4000,
        accuracy=91.0,
        samples=500,
        keras_latency_ms=2.0,
        litert_latency_ms=0.5,
    )
    after = before.model_copy(
        update={"cost": Cost(params=400, macs=20_000), "weight_bytes": 1600, "accuracy": 90.4}
    )
    gate = GateSpec(max_accuracy_drop=1.0).model_dump(mode="json")
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={"gate": gate}),
        passed=True,
        baseline_digest="b" * 64,
        candidate_digest="c" * 64,
        checks=(
            Check(name="accuracy_drop", limit="<= 1.00 points", measured="0.60", passed=True),
            Check(name="fewer_parameters", limit="< 1,000", measured="400", passed=True),
        ),
        baseline=before,
        candidate=after,
        accuracy_drop=0.6,
    )
    return verdict.model_copy(update=changes)


def failed_verdict() -> Verdict:
    """The same with a drop of 2 points."""
    drop = Check(name="accuracy_drop", limit="<= 1.00 points", measured="2.00", passed=False)
    verdict = made_verdict()
    return verdict.model_copy(
        update={"passed": False, "checks": (drop, verdict.checks[1]), "accuracy_drop": 2.0}
    )
