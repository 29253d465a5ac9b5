"""Write a release: whole or not at all, killed at any moment, by any number of publishers at once.

The order, and why a stop after any step is harmless:

1. The content goes to `blobs/<sha256>`. Nobody sees it there.
2. `intent.json` in the version's directory, written if absent, says which blobs the release is made
   of: the manifest to be. From here on everybody who publishes this version finishes this intent,
   so that all write the same bytes; what another publisher would have written does not matter.
3. The store copies the blobs to the paths of the version. All is read back and proven.
4. The manifest is written if absent.
5. The index is moved by compare-and-swap. Only now do readers see the version.
6. The intent is removed. A publisher looks at the index after it has read an intent: one that was
   written after a removal is never acted upon.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from lrf_core.artifacts import Release, ReleaseFile
from lrf_core.artifacts.seal import read_sealed, sealed_json
from lrf_core.console.progress import track
from lrf_core.errors import ArtifactError, StorageError
from lrf_core.files.scratch import scratch_folder
from lrf_core.releases.catalog import manifest_from
from lrf_core.releases.index import IndexEntry, Listing, change_index, read_index
from lrf_core.releases.layout import (
    FRESH,
    INTENT_FILE,
    SIGNATURE_FILE,
    Intent,
    blob_key,
    file_key,
    manifest_key,
)
from lrf_core.releases.verify import content_file, fetch, get_sound
from lrf_core.storage import DamagedObjectError, MissingObjectError, Store, sha256_of

_logger = logging.getLogger("lrf")

_ATTEMPTS = 5


@dataclass(frozen=True)
class ReleaseDraft:
    """A release that could be written.

    Attributes:
        manifest: the bytes of `release` as they are to be stored.
        sources: path in the release to the file here, one for each of `release.files`.
        signature: the content of `signature.json`, if it is signed.
    """

    release: Release
    manifest: bytes
    sources: Mapping[str, Path]
    signature: bytes | None = None


@dataclass(frozen=True)
class WriteResult:
    """A release that readers see, under a number.

    Attributes:
        new: whether this call made it visible.
        repaired: whether it was visible, and this call wrote again what was missing or damaged.
    """

    release: Release
    number: int
    new: bool
    repaired: bool = False


class _UnfinishableError(StorageError):
    """Content is gone that a version needs, and it cannot be made again here."""


def write_release(
    store: Store,
    name: str,
    version: str,
    propose: Callable[[], ReleaseDraft],
    prove: Callable[[Release, Path], None],
) -> WriteResult:
    """Make a version visible, unless it is: then nothing is written but what is damaged.

    Args:
        propose: makes the files; not called where the store has all that is needed.
        prove: raises unless the release is the one to publish, given its manifest and a folder
            with all its files, manifest and signature, as they were read back.

    Raises:
        ArtifactError: the version is there, is damaged, and cannot be repaired; and what `propose`
            and `prove` raise.
        StorageError: the store cannot be reached or written. Run again, and it is completed.
    """
    return _Writer(store, name, version, propose, prove).written()


@dataclass
class _Writer:
    store: Store
    name: str
    version: str
    propose: Callable[[], ReleaseDraft]
    prove: Callable[[Release, Path], None]

    @cached_property
    def proposal(self) -> ReleaseDraft:
        return self.propose()

    def written(self) -> WriteResult:
        tag: str | None = None
        for _ in range(_ATTEMPTS):
            number, entry = self._visible()
            if entry is not None:
                return self._repaired(number, entry)
            intent, tag = self._claimed()
            if self._visible()[1] is not None:
                continue  # somebody finished it meanwhile; the intent may be an echo
            try:
                written = self._finished(intent)
            except _UnfinishableError as lost:
                _logger.warning("%s; that version is started again", lost)
                self._claim(tag)
                continue
            if written is not None:
                return written
        raise StorageError(
            f"{self._url('')} could not be finished in {_ATTEMPTS} attempts; see whether the store "
            "is well, then run it again"
        )

    def _visible(self) -> tuple[int, IndexEntry | None]:
        index = read_index(self.store, self.name)
        number = index.number_of(self.version) if index else None
        return (number, index.versions[number - 1]) if index and number else (0, None)

    def _claimed(self) -> tuple[Intent, str | None]:
        """The intent to finish, of whoever was first, and its tag."""
        for _ in range(_ATTEMPTS):
            tag = None
            try:
                stored = self.store.read(self._key(INTENT_FILE))
                if stored is not None:
                    tag = stored.tag
                    intent = read_sealed(Intent, stored.content, self._url(INTENT_FILE))
                    if not intent.is_old() or self._renewed(intent, tag):
                        return intent, tag
                    continue
            except ArtifactError as damaged:
                _logger.warning("%s; it is written again", damaged)
            except DamagedObjectError as damaged:
                _logger.warning("%s; it is written again", damaged)
                self.store.delete(self._key(INTENT_FILE))
            self._claim(tag)
        raise StorageError(f"{self._url(INTENT_FILE)} cannot be written; run it again")

    def _renewed(self, intent: Intent, tag: str) -> bool:
        """Write an old intent again, so that it is not collected while it is being finished."""
        _logger.info("going on with what was started at %s in %s", intent.started, self._url(""))
        again = Intent(manifest=intent.manifest, signature=intent.signature)
        return self.store.replace(self._key(INTENT_FILE), sealed_json(again), tag)

    def _claim(self, tag: str | None) -> None:
        """Upload what is proposed, then say so, unless somebody else was faster."""
        proposal = self.proposal
        for file in track(proposal.release.files, "publish"):
            self._upload(file, proposal.sources[file.path])
        for content in (proposal.manifest, proposal.signature):
            if content is not None:
                self.store.put(blob_key(_sha256(content)), content)
        intent = Intent(
            manifest=proposal.manifest.decode(),
            signature=proposal.signature.decode() if proposal.signature else None,
        )
        self.store.replace(self._key(INTENT_FILE), sealed_json(intent), tag)

    def _finished(self, intent: Intent) -> WriteResult | None:
        """All steps after the intent; None if another publisher's manifest must be read."""
        key = manifest_key(self.name, self.version)
        there = self._unseen_manifest(key)
        content = there or intent.manifest.encode()
        release = manifest_from(content, self.store.url(key))
        signature = intent.signature.encode() if intent.signature else None
        if there is not None and there != intent.manifest.encode():
            signature = get_sound(self.store, self._key(SIGNATURE_FILE))
        parts = [*release.files, *([content_file(SIGNATURE_FILE, signature)] if signature else [])]
        self._remove_strays({part.path for part in parts})
        self._placed(release, content, parts)
        if there is None and not self.store.put_if_absent(key, content):
            if get_sound(self.store, key) is None:
                self.store.delete(key)  # damaged, and no reader has seen it
            return None
        entry = IndexEntry(
            version=self.version,
            manifest_sha256=_sha256(content),
            signature_sha256=_sha256(signature) if signature else None,
            listing=Listing.of(release),
        )
        before, _ = self._visible()
        index = change_index(self.store, self.name, lambda index: index.with_version(entry))
        self.store.delete(self._key(INTENT_FILE))
        return WriteResult(release, index.number_of(self.version) or 0, new=not before)

    def _unseen_manifest(self, key: str) -> bytes | None:
        """The manifest of a version that is not in the index yet; a damaged one is removed."""
        there = get_sound(self.store, key)
        try:
            if there is not None:
                manifest_from(there, self.store.url(key))
        except ArtifactError as damaged:
            _logger.warning("%s; it is written again", damaged)
            self.store.delete(key)
            return None
        return there

    def _repaired(self, number: int, entry: IndexEntry) -> WriteResult:
        """The release that is visible, every file of it as its manifest says."""
        key = manifest_key(self.name, self.version)
        repaired: list[str] = []
        content = get_sound(self.store, key, entry.manifest_sha256)
        if content is None:
            content = get_sound(self.store, blob_key(entry.manifest_sha256), entry.manifest_sha256)
            if content is None:
                raise self._beyond_repair(Release.file_name)
            repaired.append(Release.file_name)
            self.store.put(key, content)
        release = manifest_from(content, self.store.url(key))
        parts = list(release.files)
        if entry.signature_sha256:
            parts.append(ReleaseFile(path=SIGNATURE_FILE, size=0, sha256=entry.signature_sha256))
        try:
            repaired += self._placed(release, content, parts)
        except _UnfinishableError as lost:
            raise self._beyond_repair(str(lost)) from None
        if repaired:
            _logger.warning("missing or damaged in %s, repaired: %s", self._url(""), repaired)
        self.store.delete(self._key(INTENT_FILE))
        return WriteResult(release, number, new=False, repaired=bool(repaired))

    def _placed(self, release: Release, manifest: bytes, parts: list[ReleaseFile]) -> list[str]:
        """Put all parts in the directory of the version, read them back, and prove the release.

        Returns the paths that had to be written.
        """
        with scratch_folder("publish") as scratch:
            written = [part for part in parts if not self._is_there(part)]
            for part in written:
                self._copy(part)
            damaged = fetch(self.store, self.name, self.version, parts, scratch)
            again = [part for part in damaged if part not in written]
            for part in damaged:
                _logger.warning("%s is damaged; it is written again", self._url(part.path))
                self._restore_blob(part)
                self._copy(part)
            damaged = fetch(self.store, self.name, self.version, damaged, scratch)
            if damaged:
                raise DamagedObjectError(
                    f"{self._url(damaged[0].path)} is damaged each time that it is written; see "
                    "whether the store is well, then run it again"
                )
            (scratch / Release.file_name).write_bytes(manifest)
            self.prove(release, scratch)
        return [part.path for part in [*written, *again]]

    def _is_there(self, part: ReleaseFile) -> bool:
        """As far as the store can tell without reading it."""
        found = self.store.stat(self._key(part.path))
        return found is not None and found.sha256 == part.sha256

    def _copy(self, part: ReleaseFile) -> None:
        try:
            self.store.copy(blob_key(part.sha256), self._key(part.path))
        except MissingObjectError:
            self._restore_blob(part)
            self.store.copy(blob_key(part.sha256), self._key(part.path))

    def _restore_blob(self, part: ReleaseFile) -> None:
        """Make sure that a blob is there and sound, from this publisher's files if need be."""
        key = blob_key(part.sha256)
        with scratch_folder("publish") as scratch:
            kept = scratch / "blob"
            try:
                self.store.get_file(key, kept, part.sha256)
            except (MissingObjectError, DamagedObjectError):
                self._write_own(part, key)

    def _write_own(self, part: ReleaseFile, key: str) -> None:
        own = self.proposal
        for content in (own.manifest, own.signature):
            if content is not None and _sha256(content) == part.sha256:
                self.store.put(key, content)
                return
        for source in own.sources.values():
            if sha256_of(source).sha256 == part.sha256:
                self.store.put_file(key, source, part.sha256)
                return
        raise _UnfinishableError(f"{self.store.url(key)} ({part.path}) is missing or damaged")

    def _upload(self, file: ReleaseFile, source: Path) -> None:
        key = blob_key(file.sha256)
        found = self.store.stat(key)
        if found is not None and (found.size, found.sha256) == (file.size, file.sha256):
            written = found.modified
            if written is not None and datetime.now(UTC) - written < FRESH:
                return
        self.store.put_file(key, source, file.sha256)

    def _remove_strays(self, ours: set[str]) -> None:
        """Remove what an intent that could not be finished left in the directory."""
        kept = ours | {INTENT_FILE, Release.file_name}
        for key in list(self.store.list(self._key(""))):
            if key.removeprefix(self._key("")) not in kept:
                _logger.info("removing %s, left by an unfinished publish", self.store.url(key))
                self.store.delete(key)

    def _beyond_repair(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{self._url('')} is there already, but damaged ({what}), and this publisher has not "
            "the same content to repair it; restore it from a backup of the store"
        )

    def _key(self, path: str) -> str:
        return file_key(self.name, self.version, path)

    def _url(self, path: str) -> str:
        return self.store.url(self._key(path).removesuffix("/"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
