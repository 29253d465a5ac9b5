"""The manifest of what was published."""

from __future__ import annotations

from typing import ClassVar

from lrf_core.artifacts.record import Artifact, Record


class ReleaseFile(Record):
    """One file of a release: path below the version, size in bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


class Release(Artifact):
    """The manifest of a published version: written last, never changed."""

    file_name: ClassVar[str] = "manifest.json"
    name: str
    version: str
    location: str
    model_digest: str
    verdict_digest: str
    files: tuple[ReleaseFile, ...]
