"""Read releases back: every file against the digest that its manifest or the index has for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lrf_core.artifacts import Release, ReleaseFile
from lrf_core.errors import ArtifactError
from lrf_core.progress import track
from lrf_core.releases.catalog import index_of, manifest_from, read_manifest
from lrf_core.releases.layout import (
    INTENT_FILE,
    SIGNATURE_FILE,
    blob_key,
    file_key,
)
from lrf_core.scratch import scratch_folder
from lrf_core.storage import DamagedObjectError, MissingObjectError, Store, check_key


def fetch(
    store: Store, name: str, version: str, files: Iterable[ReleaseFile], folder: Path
) -> list[ReleaseFile]:
    """Download files of a version below a folder; returns those that are missing or damaged.

    Raises StorageError, also for a path that leads out of the folder.
    """
    damaged = []
    for file in track(list(files), "read back"):
        key = file_key(name, version, check_key(file.path))
        try:
            store.get_file(key, folder / file.path, file.sha256)
        except (MissingObjectError, DamagedObjectError):
            damaged.append(file)
    return damaged


def fetch_release(store: Store, release: Release, folder: Path) -> Path:
    """Download a release, every file checked; returns the folder.

    Raises:
        ArtifactError: a file is missing or damaged.
        StorageError: the store cannot be read, or the folder not be written.
    """
    damaged = fetch(store, release.name, release.version, release.files, folder)
    if damaged:
        raise ArtifactError(
            f"{release.location} is damaged: {', '.join(file.path for file in damaged)}; publish "
            "the same model again to repair it"
        )
    return folder


def verify_release(store: Store, release: Release) -> list[str]:
    """Read a release back, by its manifest.

    Returns:
        Paths that are missing, damaged, or not of the release at all: a model server reads whatever
        lies in the directory. The files that only the index can tell about, the manifest and the
        signature, are checked where the index has the release. Empty: it is sound.

    Raises:
        StorageError: the store cannot be read.
    """
    with scratch_folder("verify") as scratch:
        found = fetch(store, release.name, release.version, release.files, scratch)
    damaged = {file.path for file in found}
    damaged |= _strangers(store, release) | _unlike_index(store, release)
    return sorted(damaged)


def verify_version(store: Store, name: str, number: int) -> list[str]:
    """Read a visible version back with all that belongs to it: manifest, signature, and blobs.

    Returns:
        Paths as `verify_release` gives them, and `blobs/<sha256>`.

    Raises:
        ArtifactError: no such number, or the index is damaged.
        StorageError: the store cannot be read.
    """
    index = index_of(store, name)
    if not 1 <= number <= len(index.versions):
        raise ArtifactError(f"no release {name} {number}; there are 1 to {len(index.versions)}")
    entry = index.versions[number - 1]
    digests = {entry.manifest_sha256}
    if entry.signature_sha256:
        digests.add(entry.signature_sha256)
    damaged: list[str] = []
    release: Release | None
    try:
        release = read_manifest(store, name, entry)
    except (ArtifactError, DamagedObjectError):
        damaged.append(Release.file_name)
        kept = get_sound(store, blob_key(entry.manifest_sha256), entry.manifest_sha256)
        release = manifest_from(kept, Release.file_name) if kept else None
    if release is not None:
        damaged += [path for path in verify_release(store, release) if path not in damaged]
        digests |= {file.sha256 for file in release.files}
    return damaged + damaged_blobs(store, digests)


def damaged_blobs(store: Store, digests: Iterable[str]) -> list[str]:
    """Keys of the blobs with these digests (hex) that are missing or damaged."""
    damaged = []
    with scratch_folder("verify") as scratch:
        for sha256 in track(sorted(digests), "verify blobs"):
            try:
                store.get_file(blob_key(sha256), scratch / "blob", sha256)
            except (MissingObjectError, DamagedObjectError):
                damaged.append(blob_key(sha256))
    return damaged


def get_sound(store: Store, key: str, sha256: str | None = None) -> bytes | None:
    """Content; None where it is missing or damaged, as far as the store or a digest can tell."""
    try:
        content = store.get(key)
    except (MissingObjectError, DamagedObjectError):
        return None
    known = sha256 is None or hashlib.sha256(content).hexdigest() == sha256
    return content if known else None


def content_file(path: str, content: bytes) -> ReleaseFile:
    """The entry of a file with this content."""
    return ReleaseFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _strangers(store: Store, release: Release) -> set[str]:
    folder = file_key(release.name, release.version, "")
    known = {file.path for file in release.files} | {Release.file_name, INTENT_FILE}
    if release.signed_by:
        known.add(SIGNATURE_FILE)
    return {key.removeprefix(folder) for key in store.list(folder)} - known


def _unlike_index(store: Store, release: Release) -> set[str]:
    index = index_of(store, release.name)
    number = index.number_of(release.version)
    if number is None:
        return set()
    entry = index.versions[number - 1]
    expected = {Release.file_name: entry.manifest_sha256}
    if entry.signature_sha256 or release.signed_by:
        expected[SIGNATURE_FILE] = entry.signature_sha256 or ""
    return {
        path
        for path, sha256 in expected.items()
        if get_sound(store, file_key(release.name, release.version, path), sha256) is None
    }
