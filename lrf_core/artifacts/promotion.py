"""What was done to bring a release into service, step by step."""

from __future__ import annotations

from typing import ClassVar, Literal

from lrf_core.artifacts.record import Artifact, Record

Outcome = Literal["promoted", "already_served", "rolled_back", "left"]


class PromotionStep(Record):
    """One thing that was done.

    Attributes:
        name: e.g. "patch", "ready at 10%", "answers", "watch at 10%", "roll back".
        started: ISO 8601, UTC.
        seconds: that it took.
        passed: whether it did what it should.
        detail: what was found, for a user.
    """

    name: str
    started: str
    seconds: float
    passed: bool
    detail: str = ""


class Promotion(Artifact):
    """A promotion, however it ended.

    Attributes:
        release: name/version.
        number: of the version, from 1.
        service: namespace/name of the InferenceService.
        storage_uri: what the service was to load.
        mode: how KServe runs the service; "unknown" where it does not say.
        outcome: `left`: neither finished nor rolled back; `reason` says what is served.
        reason: why it is not promoted, else empty.
    """

    file_name: ClassVar[str] = "promotion.json"
    release: str
    number: int
    service: str
    storage_uri: str
    mode: Literal["serverless", "raw", "unknown"]
    outcome: Outcome
    reason: str = ""
    steps: tuple[PromotionStep, ...]
