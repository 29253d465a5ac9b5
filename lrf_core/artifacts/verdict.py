"""The gate's answer, check by check."""

from __future__ import annotations

from typing import ClassVar

from lrf_core.artifacts.analysis import ModelMeasures
from lrf_core.artifacts.record import Artifact, Record


class Check(Record):
    """One question of the gate. `measured` None means it could not be measured: a fail."""

    name: str
    limit: str
    measured: str | None
    passed: bool
    note: str = ""


class Verdict(Artifact):
    """The gate's answer for one candidate model.

    Attributes:
        baseline_digest, candidate_digest: content digests of the two models.
        drop_interval: 95% interval of the accuracy drop (points), paired bootstrap.
        agreement: percent of samples on which both models give the same class.
    """

    file_name: ClassVar[str] = "verdict.json"
    passed: bool
    baseline_digest: str
    candidate_digest: str
    checks: tuple[Check, ...]
    baseline: ModelMeasures
    candidate: ModelMeasures
    accuracy_drop: float | None = None
    drop_interval: tuple[float, float] | None = None
    agreement: float | None = None
