"""The manifest of what was published, and who let it through where the gate did not."""

from __future__ import annotations

from typing import ClassVar

from lrf_core.artifacts.record import Artifact, Record
from lrf_core.artifacts.verdict import Check


class ReleaseFile(Record):
    """One file of a release: path below the version, size in bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


class Override(Artifact):
    """A person's decision to publish a model that did not pass; the verdict stays as it is.

    Attributes:
        by: who decided.
        reason: why.
        checks: what did not pass, as the verdict has it.
        candidate_digest, verdict_digest: the model and the verdict that were decided on.
    """

    file_name: ClassVar[str] = "override.json"
    by: str
    reason: str
    checks: tuple[Check, ...]
    candidate_digest: str
    verdict_digest: str


class Release(Artifact):
    """The manifest of a published version: written last, never changed.

    Attributes:
        override: why a model is published that did not pass; None where it passed.
    """

    file_name: ClassVar[str] = "manifest.json"
    name: str
    version: str
    location: str
    model_digest: str
    verdict_digest: str
    files: tuple[ReleaseFile, ...]
    override: Override | None = None
