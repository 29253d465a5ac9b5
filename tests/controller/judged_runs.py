"""Verdicts and releases without a model, as runs leave them."""

from __future__ import annotations

from lrf_core.artifacts import (
    Check,
    Cost,
    Lineage,
    ModelMeasures,
    Release,
    ReleaseSummary,
    Verdict,
)


def judged(*, passed: bool) -> Verdict:
    before, after = (
        ModelMeasures(cost=Cost(params=params, macs=params), weight_bytes=4 * params)
        for params in (100, 50)
    )
    measured = "0.5 points" if passed else "3 points"
    return Verdict(
        lineage=Lineage(inputs={}, settings={}, versions={}),
        passed=passed,
        baseline_digest="b" * 64,
        candidate_digest="c" * 64,
        checks=(Check(name="accuracy_drop", limit="<= 1 point", measured=measured, passed=passed),),
        baseline=before,
        candidate=after,
    )


def release_of(location: str) -> Release:
    return Release(
        lineage=Lineage(inputs={}, settings={}, versions={}),
        name="tiny",
        version="v-000000000001",
        location=location,
        model_digest="c" * 64,
        verdict_digest="d" * 64,
        files=(),
        summary=ReleaseSummary.of(judged(passed=True)),
    )
