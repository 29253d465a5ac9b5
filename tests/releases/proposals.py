"""Releases of small files that are no models: to test how releases are written, in milliseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrf_core.artifacts import Lineage, Release, ReleaseFile, ReleaseSummary
from lrf_core.releases import ReleaseDraft, WriteResult, version_of, write_release
from lrf_core.storage import Store

SUMMARY = ReleaseSummary(
    accuracy_before=90.0,
    accuracy_after=89.5,
    params_before=100,
    params_after=50,
    macs_before=1000,
    macs_after=600,
    weight_bytes_before=400,
    weight_bytes_after=200,
)


@dataclass(frozen=True)
class Content:
    """What is to be released: the model decides the version, the report does not."""

    folder: Path
    model: bytes = b"a model"
    report: bytes = b"a report"
    name: str = "tiny"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model).hexdigest()

    @property
    def version(self) -> str:
        return version_of(self.name, self.digest)

    def proposal(self, store: Store) -> ReleaseDraft:
        files = {
            "model.keras": self.model,
            "report.html": self.report,
            "saved_model/1/saved_model.pb": b"graph of " + self.model,
        }
        sources = {path: self.folder / self.digest / path for path in files}
        for path, content in files.items():
            sources[path].parent.mkdir(parents=True, exist_ok=True)
            sources[path].write_bytes(content)
        release = Release(
            lineage=Lineage(inputs={}, settings={}, versions={}),
            name=self.name,
            version=self.version,
            location=store.url(f"{self.name}/{self.version}"),
            model_digest=self.digest,
            verdict_digest="d" * 64,
            summary=SUMMARY,
            files=tuple(
                ReleaseFile(
                    path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest()
                )
                for path, content in files.items()
            ),
        )
        manifest = release.model_dump_json(indent=2).encode()
        return ReleaseDraft(release, manifest, sources)

    def with_report(self, report: bytes) -> Content:
        return replace(self, report=report, folder=self.folder / report.hex())

    def write(self, store: Store) -> WriteResult:
        def prove(release: Release, folder: Path) -> None:
            assert (folder / "model.keras").read_bytes() == self.model
            assert (folder / "manifest.json").is_file()

        return write_release(store, self.name, self.version, lambda: self.proposal(store), prove)


class Killed(BaseException):
    """The process ends here; no `except Exception` may go on after it."""


@dataclass
class Counting:
    """A store that counts its operations, and tells the number of each before it is done."""

    store: Store
    told: Callable[[int], None]
    done: int = 0

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)
        if name == "url":  # computed, not asked for
            return operation

        def counted(*arguments: Any) -> Any:
            self.done += 1
            self.told(self.done)
            return operation(*arguments)

        return counted
