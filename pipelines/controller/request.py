"""What a request is: one model's content, to be compressed by one spec; and what becomes of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from lrf_core.artifacts import Record
from lrf_core.artifacts.record import digest_of

State = Literal["waiting", "running", "published", "refused", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "published", "refused", "failed")
FINAL: tuple[State, ...] = ("published", "refused", "failed")


class Result(Record):
    """What a run came to, as far as it is known.

    Attributes:
        release: address of the release; None where nothing was published.
        name, version: of the release.
        metrics: what compression changed, by the names that registries are given.
        failed_checks: of the gate, each with what was measured and its limit.
        report: where a person reads more: the page of the run, or its folder.
    """

    release: str | None = None
    name: str | None = None
    version: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    failed_checks: tuple[str, ...] = ()
    report: str | None = None


class Request(Record):
    """A request and its state: one object in the state store.

    Attributes:
        address: its content address, see `address_of`.
        source: the source that asked first.
        asked_as: what it is called there.
        spec_name: the named spec that was asked for.
        settings: that spec as it was then, with the model to read; `out` is up to who runs it.
        model_digest: sha256 (hex) of the model's file.
        state: where it stands.
        created, since: when it was accepted, and when it came into this state.
        attempts: runs started so far, this one included.
        claim: the controller that starts the run; None unless it is running.
        run_id: the run; None as long as nobody noted that it was started.
        not_before: a waiting request is left alone until then.
        reason: why it is refused, failed, or waits again.
        result: what the last run came to.
    """

    schema_version: Literal[1] = 1
    address: str
    source: str
    asked_as: str
    spec_name: str
    settings: dict[str, Any]
    model_digest: str
    state: State = "waiting"
    created: datetime
    since: datetime
    attempts: int = 0
    claim: str | None = None
    run_id: str | None = None
    not_before: datetime | None = None
    reason: str = ""
    result: Result | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in FINAL

    def __str__(self) -> str:
        return f"{self.address[:12]} ({self.asked_as}, spec {self.spec_name})"


def address_of(model_digest: str, settings: dict[str, Any]) -> str:
    """The content address: the same model by the same spec is the same request.

    Args:
        model_digest: sha256 (hex) of the model's file.
        settings: the spec, without the place where the model lies. What it says of the cluster
            does not count: an image or a node selector makes no other model.
    """
    asked = {name: value for name, value in settings.items() if name != "cluster"}
    return digest_of({"model": model_digest, "spec": asked})


class Note(Record):
    """What is remembered of a model that asked: its request, and what its source was told.

    Attributes:
        source, reference: which model of which source.
        fingerprint: of what was asked; another one is looked at anew.
        address: of the request; None where it cannot become one.
        problem: why it cannot.
        told: what the source was told last, see `Outcome.told`.
    """

    schema_version: Literal[1] = 1
    source: str
    reference: str
    fingerprint: str
    address: str | None = None
    problem: str = ""
    told: str = ""
