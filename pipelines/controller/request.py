"""What a request is: one model's content, to be compressed by one spec; and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import AliasChoices, Field

from lrf_core.artifacts import Record
from lrf_core.artifacts.record import digest_of

State = Literal["waiting", "running", "published", "refused", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "published", "refused", "failed")
FINAL: tuple[State, ...] = ("published", "refused", "failed")


class Result(Record):
    """What a run came to, as far as it is known.

    Attributes:
        release: address of the release; None if nothing was published.
        name, version: of the release.
        metrics: what compression changed, by the names that registries are given.
        failed_checks: of the gate, each with what was measured and its limit.
        report: where users read more: the page of the run, or its folder.
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
        source: the first source that has the model.
        asked_as: the name of the model there.
        spec_name: name of the spec.
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
    decisive = {name: value for name, value in settings.items() if name != "cluster"}
    return digest_of({"model": model_digest, "spec": decisive})


class Note(Record):
    """What is remembered of an incoming model: its request, and the last report to its source.

    Attributes:
        source, reference: which model of which source.
        fingerprint: of content, spec and name; a model with another one is read again.
        address: of the request; None if it cannot become one.
        problem: why it cannot.
        last_reported: `Outcome.report_key` of the last report to the source.
    """

    schema_version: Literal[1] = 1
    source: str
    reference: str
    fingerprint: str
    address: str | None = None
    problem: str = ""
    # Notes of earlier versions call it `told`.
    last_reported: str = Field("", validation_alias=AliasChoices("last_reported", "told"))


@dataclass(frozen=True)
class Outcome:
    """A note, and the request that came of it; None if it could not become one."""

    note: Note
    request: Request | None

    @property
    def state(self) -> str:
        """The request's state; `failed` where there is none."""
        return self.request.state if self.request else "failed"

    @property
    def reason(self) -> str:
        """Why it is refused, failed or waits again; empty otherwise."""
        return self.request.reason if self.request else self.note.problem

    @property
    def report_key(self) -> str:
        """Names what there is to report: a source that has this report needs it no second time."""
        if self.request is None:
            return f"failed {self.note.fingerprint} {self.note.problem}"
        return f"{self.request.address} {self.state} {self.request.attempts} {self.reason}"

    def properties(self) -> dict[str, str]:
        """For registries: `lrf.state`, `lrf.reason`, `lrf.release`, `lrf.report`, `lrf.attempts`.

        What does not apply any more is empty.
        """
        result = self.request.result if self.request else None
        return {
            "lrf.state": self.state,
            "lrf.reason": self.reason,
            "lrf.release": (result and result.release) or "",
            "lrf.report": (result and result.report) or "",
            "lrf.attempts": str(self.request.attempts if self.request else 0),
        }

    def metrics(self) -> dict[str, float]:
        """What compression changed, once that is known."""
        result = self.request.result if self.request else None
        return dict(result.metrics) if result else {}

    def document(self) -> dict[str, Any]:
        """For a JSON object beside the model."""
        document: dict[str, Any] = {"state": self.state, "reason": self.reason}
        if self.request is None:
            return document
        request = self.request
        return {
            **document,
            "spec": request.spec_name,
            "request": request.address,
            "model_sha256": request.model_digest,
            "attempts": request.attempts,
            "run": request.run_id,
            "since": request.since.isoformat(timespec="seconds"),
            **(request.result.model_dump(mode="json") if request.result else {}),
        }
