"""Read releases back: every file against the digest that its manifest or the index has for it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lrf_core.artifacts import Release, ReleaseFile
from lrf_core.console.progress import track
from lrf_core.errors import ArtifactError
from lrf_core.files.scratch import scratch_folder
from lrf_core.releases.catalog import index_of, manifest_from, read_manifest
from lrf_core.releases.index import IndexEntry, Listing
from lrf_core.releases.layout import (
    INDEX_FILE,
    INTENT_FILE,
    SAVED_MODEL,
    SIGNATURE_FILE,
    blob_key,
    file_key,
)
from lrf_core.releases.parallel import in_parallel
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


def fetch_served(store: Store, release: Release, folder: Path) -> None:
    """Download what model servers read of a release, every file checked: `<folder>/1/...`.

    Raises:
        ArtifactError: a file is missing or damaged.
        StorageError: the store cannot be read.
    """
    served = tuple(file for file in release.files if file.path.startswith(f"{SAVED_MODEL}/"))
    with scratch_folder("served") as scratch:
        fetch_release(store, release.model_copy(update={"files": served}), scratch)
        shutil.copytree(scratch / SAVED_MODEL, folder, dirs_exist_ok=True)


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
    index = index_of(store, release.name)
    number = index.number_of(release.version)
    entry = index.versions[number - 1] if number else None
    return _unsound_files(store, release, entry)


def verify_version(store: Store, name: str, number: int) -> list[str]:
    """Read one visible version back, see `verify_versions`."""
    return verify_versions(store, name, [number])[number]


def verify_versions(
    store: Store, name: str, numbers: Sequence[int] | None = None
) -> dict[int, list[str]]:
    """Read visible versions back with all that belongs to them: manifest, signature, and blobs.

    Several at a time; what the releases share is read once.

    Args:
        numbers: of the versions; None for all of the name.

    Returns:
        Number to paths as `verify_release` gives them, `blobs/<sha256>`, and `index.json` where it
        lists another release than the manifest describes; in the order of the numbers given.

    Raises:
        ArtifactError: no such number, or the index is damaged.
        StorageError: the store cannot be read.
    """
    index = index_of(store, name)
    count = len(index.versions)
    numbers = range(1, count + 1) if numbers is None else numbers
    for number in numbers:
        if not 1 <= number <= count:
            raise ArtifactError(f"no release {name} {number}; there are 1 to {count}")
    entries = [index.versions[number - 1] for number in numbers]
    found = in_parallel(
        lambda entry: _verified(store, name, entry), entries, f"Verifying releases of {name}"
    )
    damaged = damaged_blobs(store, {digest for _, digests in found for digest in digests})
    bad = set(damaged)
    return {
        number: [*paths, *(key for key in map(blob_key, sorted(digests)) if key in bad)]
        for number, (paths, digests) in zip(numbers, found, strict=True)
    }


def damaged_blobs(store: Store, digests: Iterable[str]) -> list[str]:
    """Keys of the blobs with these digests (hex) that are missing or damaged, sorted."""

    def is_sound(sha256: str) -> bool:
        with scratch_folder("verify") as scratch:
            try:
                store.get_file(blob_key(sha256), scratch / "blob", sha256)
            except (MissingObjectError, DamagedObjectError):
                return False
        return True

    wanted = sorted(digests)
    sound = in_parallel(is_sound, wanted, "Verifying blobs")
    return [blob_key(digest) for digest, good in zip(wanted, sound, strict=True) if not good]


def get_sound(store: Store, key: str, sha256: str | None = None) -> bytes | None:
    """Content; None if it is missing or damaged, as far as the store or a digest can tell."""
    try:
        content = store.get(key)
    except (MissingObjectError, DamagedObjectError):
        return None
    known = sha256 is None or hashlib.sha256(content).hexdigest() == sha256
    return content if known else None


def content_file(path: str, content: bytes) -> ReleaseFile:
    """The entry of a file with this content."""
    return ReleaseFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _verified(store: Store, name: str, entry: IndexEntry) -> tuple[list[str], set[str]]:
    """Paths of one version that are not sound, and the digests (hex) of the blobs it rests on."""
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
        found = _unsound_files(store, release, entry, manifest_is_known=True)
        damaged += [path for path in found if path not in damaged]
        digests |= {file.sha256 for file in release.files}
        if entry.listing not in (None, Listing.of(release)):
            damaged.append(INDEX_FILE)
    return damaged, digests


def _unsound_files(
    store: Store, release: Release, entry: IndexEntry | None, *, manifest_is_known: bool = False
) -> list[str]:
    """Paths of a version that are missing, damaged or not of it.

    Args:
        entry: of the version in the index; None if it has none.
        manifest_is_known: the manifest was compared with the index already.
    """
    with scratch_folder("verify") as scratch:
        found = fetch(store, release.name, release.version, release.files, scratch)
    damaged = {file.path for file in found} | _strangers(store, release)
    expected: dict[str, str] = {}
    if entry is not None and not manifest_is_known:
        expected[Release.file_name] = entry.manifest_sha256
    if entry is not None and (entry.signature_sha256 or release.signed_by):
        expected[SIGNATURE_FILE] = entry.signature_sha256 or ""
    damaged |= {
        path
        for path, sha256 in expected.items()
        if get_sound(store, file_key(release.name, release.version, path), sha256) is None
    }
    return sorted(damaged)


def _strangers(store: Store, release: Release) -> set[str]:
    folder = file_key(release.name, release.version, "")
    known = {file.path for file in release.files} | {Release.file_name, INTENT_FILE}
    if release.signed_by:
        known.add(SIGNATURE_FILE)
    return {key.removeprefix(folder) for key in store.list(folder)} - known
