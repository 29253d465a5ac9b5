"""A kind of registry as tests see it, and releases to register."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from cutting_proxy import CuttingProxy

from lrf_core.artifacts import Lineage, Override, Release, ReleaseFile, ReleaseSummary
from lrf_core.registry import Registry, open_registry
from lrf_core.registry.kubeflow import KubeflowRegistry
from lrf_core.releases import version_of
from lrf_core.releases.index import IndexEntry, change_index
from lrf_core.releases.layout import manifest_key
from lrf_core.storage import Store

REPORTS = ("report.html", "verdict.json")


@dataclass(frozen=True)
class RegistryCase:
    """A registry that can be reached through a proxy that cuts it off; `bucket` has no server.

    Attributes:
        versions: how many versions the server itself has of a release.
    """

    kind: str
    uri: str
    store: Store
    versions: Callable[[Release], int]
    proxy: CuttingProxy | None = None

    def open(self) -> Registry:
        return impatient(open_registry(self.uri, self.store))

    def publish(self, name: str | None = None, **changes: object) -> tuple[Release, int]:
        """A release with its manifest and reports in the store's index, and its number."""
        name = name or f"tiny-{uuid.uuid4().hex[:8]}"
        release = release_in(self.store, name, **changes)
        return release, index_release(self.store, release)


def impatient(registry: Registry) -> Registry:
    """Trying once only, so that a test of a server that is gone takes no time."""
    return replace(registry, attempts=1) if isinstance(registry, KubeflowRegistry) else registry


def release_in(store: Store, name: str, **changes: object) -> Release:
    """A release of a model of its own, as `publish` describes it; only its reports are written."""
    digest = hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    version = version_of(name, digest)
    files = []
    for path in REPORTS:
        content = f"{path} of {version}".encode()
        store.put(f"{name}/{version}/{path}", content)
        files.append(
            ReleaseFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        )
    release = Release(
        lineage=Lineage(inputs={"model": digest}, settings={"name": name}, parent="b" * 64),
        name=name,
        version=version,
        location=store.url(f"{name}/{version}"),
        model_digest=digest,
        verdict_digest="d" * 64,
        files=tuple(files),
        summary=ReleaseSummary(
            accuracy_before=91.25,
            accuracy_after=90.5,
            params_before=271_098,
            params_after=120_000,
            macs_before=41_000_000_000,
            macs_after=16_000_000_000,
            weight_bytes_before=1_084_392,
            weight_bytes_after=480_000,
        ),
    )
    return release.model_copy(update=changes)


def index_release(store: Store, release: Release) -> int:
    """Put the manifest and the index's entry where publishing does; returns the number."""
    manifest = release.model_dump_json().encode()
    store.put(manifest_key(release.name, release.version), manifest)
    entry = IndexEntry(
        version=release.version, manifest_sha256=hashlib.sha256(manifest).hexdigest()
    )
    index = change_index(store, release.name, lambda index: index.with_version(entry))
    number = index.number_of(release.version)
    assert number is not None
    return number


def override_by(who: str) -> Override:
    return Override(
        lineage=Lineage(inputs={}, settings={}),
        by=who,
        reason="agreed with the product owner",
        checks=(),
        candidate_digest="a" * 64,
        verdict_digest="d" * 64,
    )
