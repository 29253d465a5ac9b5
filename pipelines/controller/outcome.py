"""What a source is told about a model that asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.controller.request import Note, Request


@dataclass(frozen=True)
class Outcome:
    """A note, and the request that came of it; None where it could not become one."""

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
    def told(self) -> str:
        """Names what there is to tell: a source that was told this needs not be told again."""
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
