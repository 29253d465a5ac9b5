"""Garbage of publishers that died: what no manifest names, and is older than a grace period."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from lrf_core.artifacts import Release
from lrf_core.artifacts.seal import read_sealed
from lrf_core.errors import ArtifactError
from lrf_core.releases.catalog import manifest_from
from lrf_core.releases.index import IndexEntry, read_index
from lrf_core.releases.layout import (
    INTENT_FILE,
    SIGNATURE_FILE,
    Intent,
    blob_key,
    file_key,
    is_blob,
    manifest_key,
    version_in,
)
from lrf_core.releases.parallel import in_parallel
from lrf_core.releases.verify import get_sound
from lrf_core.storage import Store

GRACE = timedelta(hours=24)

_NAMING = (f"/{INTENT_FILE}", f"/{Release.file_name}")


@dataclass(frozen=True)
class Garbage:
    """What can be removed: keys, in the order to remove them, and their bytes altogether."""

    keys: tuple[str, ...]
    size: int


def find_garbage(store: Store, older_than: timedelta = GRACE) -> Garbage:
    """What publishers left behind: blobs that nothing names, unfinished versions, stray files.

    Nothing that was written within the grace period counts: a publisher may be at it. Objects that
    are not in the layout of releases are never touched.

    Raises:
        ArtifactError: a manifest or an index cannot be read, so nobody knows what it names.
        StorageError: the store cannot be read.
    """
    survey = _Survey(store, datetime.now(UTC) - older_than)
    keys, size = [], 0
    for key in survey.suspects():
        found = store.stat(key)
        if found is not None:
            keys.append(key)
            size += found.size
    return Garbage(tuple(keys), size)


def collect_garbage(store: Store, older_than: timedelta = GRACE) -> Garbage:
    """Remove what `find_garbage` finds; returns what was removed. Raises as that does.

    Ages are also measured by the clock of the store, and the younger age counts: a clock that is
    ahead on this machine makes nothing old.
    """
    found = find_garbage(store, older_than)
    if not found.keys:
        return found
    before = _earlier_now(store) - older_than
    removed = [key for key in found.keys if _is_old(store, key, before)]
    for key in removed:
        store.delete(key)
    return Garbage(tuple(removed), found.size)


def _earlier_now(store: Store) -> datetime:
    """The time by the clock of this machine or by that of the store, whichever is earlier."""
    key = f"clock-{uuid.uuid4()}"
    store.put(key, b"")
    try:
        probe = store.stat(key)
    finally:
        store.delete(key)
    now = datetime.now(UTC)
    return min(now, probe.modified) if probe and probe.modified else now


@dataclass
class _Survey:
    store: Store
    before: datetime
    blobs: list[str] = field(default_factory=list)
    versions: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    named: set[str] = field(default_factory=set)
    visible: dict[tuple[str, str], Release] = field(default_factory=dict)

    def suspects(self) -> list[str]:
        """Keys that are old and not named by anything."""
        for key in self.store.list():
            if is_blob(key):
                self.blobs.append(key)
            elif found := version_in(key):
                self.versions[found[:2]].append(key)
        names = {name for name, _ in self.versions}
        for name in names:
            index = read_index(self.store, name)
            entries = index.versions if index else ()
            for entry, manifest in zip(entries, self._manifests(name, entries), strict=True):
                self._keep_visible(name, entry, manifest)
        strays = [
            key
            for (name, version), keys in sorted(self.versions.items())
            for key in self._strays(name, version, keys)
        ]
        # The intent last: what is interrupted here is recognized again.
        strays.sort(key=lambda key: key.endswith(f"/{INTENT_FILE}"))
        unnamed = [key for key in sorted(self.blobs) if key not in self.named]
        old = in_parallel(self._is_old, unnamed, "Looking at unnamed blobs")
        return strays + [key for key, is_old in zip(unnamed, old, strict=True) if is_old]

    def _manifests(self, name: str, entries: Sequence[IndexEntry]) -> list[bytes | None]:
        def read(entry: IndexEntry) -> bytes | None:
            sha256 = entry.manifest_sha256
            content = get_sound(self.store, manifest_key(name, entry.version), sha256)
            return content or get_sound(self.store, blob_key(sha256), sha256)

        return in_parallel(read, entries, f"Reading manifests of {name}")

    def _keep_visible(self, name: str, entry: IndexEntry, content: bytes | None) -> None:
        sha256 = entry.manifest_sha256
        if content is None:
            raise ArtifactError(
                f"{self.store.url(manifest_key(name, entry.version))} is missing or damaged, so "
                "nobody knows which blobs it names; restore it before collecting garbage"
            )
        self.named |= {blob_key(sha256), blob_key(entry.signature_sha256 or "")}
        release = manifest_from(content, name)
        self.visible[name, entry.version] = release
        self._keep(release)

    def _keep(self, release: Release) -> None:
        self.named |= {blob_key(file.sha256) for file in release.files}

    def _strays(self, name: str, version: str, keys: list[str]) -> list[str]:
        """Of one version: what its release does not name, or all that was abandoned."""
        release = self.visible.get((name, version))
        if release is not None:
            known = {manifest_key(name, version), file_key(name, version, SIGNATURE_FILE)}
            known |= {file_key(name, version, file.path) for file in release.files}
            return [key for key in keys if key not in known and self._is_old(key)]
        # With a manifest, only the index is missing: its publisher would go on from there.
        if manifest_key(name, version) not in keys and all(map(self._is_old, keys)):
            return keys
        self._keep_unseen(keys)
        return []

    def _is_old(self, key: str) -> bool:
        return _is_old(self.store, key, self.before)

    def _keep_unseen(self, keys: list[str]) -> None:
        """Keep the blobs that an intent or a manifest names that readers do not see yet."""
        for key in keys:
            content = get_sound(self.store, key) if key.endswith(_NAMING) else None
            if content is not None and key.endswith(INTENT_FILE):
                intent = read_sealed(Intent, content, self.store.url(key))
                self.named |= {blob_key(digest) for digest in intent.digests()}
                content = intent.manifest.encode()
            if content is not None:
                self._keep(manifest_from(content, self.store.url(key)))


def _is_old(store: Store, key: str, before: datetime) -> bool:
    found = store.stat(key)
    return found is not None and found.modified is not None and found.modified < before
