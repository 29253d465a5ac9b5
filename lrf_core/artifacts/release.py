"""The manifest of what was published, and who let it through where the gate did not."""

from __future__ import annotations

from typing import ClassVar

from lrf_core.artifacts.record import Artifact, Record
from lrf_core.artifacts.verdict import Check, Verdict


class ReleaseFile(Record):
    """One file of a release: path below the version, size in bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


class Override(Artifact):
    """A user's decision to publish a model that did not pass; the verdict stays as it is.

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


class ReleaseSummary(Record):
    """The model in numbers, before and after compression, as its verdict has them.

    Attributes:
        accuracy_before, accuracy_after: percent of the test samples; None if not measured.
        params_before, params_after: parameters.
        macs_before, macs_after: multiply-adds of one sample.
        weight_bytes_before, weight_bytes_after: of all weights as stored.
    """

    accuracy_before: float | None
    accuracy_after: float | None
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    weight_bytes_before: int
    weight_bytes_after: int

    @classmethod
    def of(cls, verdict: Verdict) -> ReleaseSummary:
        """From what was measured for a verdict."""
        before, after = verdict.baseline, verdict.candidate
        return cls(
            accuracy_before=before.accuracy,
            accuracy_after=after.accuracy,
            params_before=before.cost.params,
            params_after=after.cost.params,
            macs_before=before.cost.macs,
            macs_after=after.cost.macs,
            weight_bytes_before=before.weight_bytes,
            weight_bytes_after=after.weight_bytes,
        )


class Release(Artifact):
    """The manifest of a published version: written last, never changed.

    Attributes:
        name, version: what it is called; the version follows from the name and the model.
        location: address of the directory with the files.
        model_digest: of the model that was judged and is stored.
        verdict_digest: of the verdict that let it through.
        files: all files below `location` except the manifest itself and its signature.
        summary: the model in numbers.
        signed_by: fingerprint of the public key, `sha256:...`; None if it is not signed.
        override: why a model is published that did not pass; None if it passed.
    """

    file_name: ClassVar[str] = "manifest.json"
    name: str
    version: str
    location: str
    model_digest: str
    verdict_digest: str
    files: tuple[ReleaseFile, ...]
    summary: ReleaseSummary
    signed_by: str | None = None
    override: Override | None = None
