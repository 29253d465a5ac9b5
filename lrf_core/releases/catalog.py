"""What readers see: releases by alias, number or version, and the aliases moved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import ValidationError

from lrf_core.artifacts import Release
from lrf_core.errors import ArtifactError, SpecError
from lrf_core.releases.index import (
    CHAMPION,
    LATEST,
    PREVIOUS,
    IndexEntry,
    Listing,
    ReleaseIndex,
    change_index,
    read_index,
)
from lrf_core.releases.layout import check_alias, index_key, is_version, manifest_key
from lrf_core.releases.parallel import in_parallel
from lrf_core.storage import MissingObjectError, Store


@dataclass(frozen=True)
class CatalogEntry:
    """A release that readers see: its number, from 1, and the aliases it has."""

    number: int
    release: Release
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class CatalogLine:
    """The same as a list shows it: without the files."""

    number: int
    version: str
    aliases: tuple[str, ...]
    listing: Listing


def resolve(store: Store, name: str, ref: str | int) -> CatalogEntry:
    """The release under an alias, a number or a version (`v-...`).

    Raises:
        ArtifactError: there is none, or its manifest is damaged.
        StorageError: the store cannot be read.
    """
    index = index_of(store, name)
    return _listed(store, name, index, number_of(index, name, str(ref)))


def list_releases(store: Store, name: str) -> list[CatalogLine]:
    """All releases of a name, by number, as the index has them.

    One request; and one more for each release that an older version of lrf published.

    Raises:
        ArtifactError: there are none, or the index or such a manifest is damaged.
        StorageError: the store cannot be read.
    """
    index = index_of(store, name)
    older = [entry for entry in index.versions if entry.listing is None]
    read = in_parallel(lambda entry: read_manifest(store, name, entry), older, "Reading manifests")
    found = {release.version: Listing.of(release) for release in read}
    return [
        CatalogLine(
            number,
            entry.version,
            index.aliases_of(number),
            entry.listing or found[entry.version],
        )
        for number, entry in enumerate(index.versions, 1)
    ]


def release_names(store: Store) -> list[str]:
    """The names that releases were published under, sorted. Raises StorageError."""
    return sorted(name for name in store.folders() if store.stat(index_key(name)))


def set_alias(store: Store, name: str, alias: str, number: int) -> None:
    """Move an alias; the champion that is replaced becomes `previous` in the same step.

    Raises:
        SpecError: an alias that cannot be used; `latest` moves with publishing only.
        ArtifactError: there is no such number.
        StorageError: the store cannot be written.
    """
    check_alias(alias)
    if alias == LATEST:
        raise SpecError(f"'{LATEST}' moves with publishing only; choose another alias")
    index_of(store, name)

    def change(index: ReleaseIndex) -> ReleaseIndex:
        return index.with_alias(alias, number_of(index, name, str(number)))

    change_index(store, name, change)


def rollback(store: Store, name: str) -> CatalogEntry:
    """Make the previous champion the champion again, and the champion the previous one.

    Raises:
        ArtifactError: there is no previous champion.
        StorageError: the store cannot be written.
    """
    index_of(store, name)

    def change(index: ReleaseIndex) -> ReleaseIndex:
        if PREVIOUS not in index.aliases:
            raise ArtifactError(
                f"{name} has no '{PREVIOUS}' release to roll back to; promote a second one first"
            )
        return index.with_alias(CHAMPION, index.aliases[PREVIOUS])

    changed = change_index(store, name, change)
    return _listed(store, name, changed, changed.aliases[CHAMPION])


def index_of(store: Store, name: str) -> ReleaseIndex:
    """The index of a name that something was published under. Raises ArtifactError."""
    index = read_index(store, name)
    if index is None:
        raise ArtifactError(
            f"no release of '{name}' in {store.url()}; check the name and where to look (--from)"
        )
    return index


def number_of(index: ReleaseIndex, name: str, ref: str) -> int:
    """The number that an alias, a number or a version stands for. Raises ArtifactError."""
    if ref in index.aliases:
        return index.aliases[ref]
    number = index.number_of(ref) if is_version(ref) else _as_number(ref)
    if number is None or not 1 <= number <= len(index.versions):
        known = ", ".join(sorted(index.aliases))
        raise ArtifactError(
            f"no release {name} {ref!r:.80}; there are numbers 1 to {len(index.versions)} and "
            f"the aliases {known}"
        )
    return number


def read_manifest(store: Store, name: str, entry: IndexEntry) -> Release:
    """The manifest of a version that readers see.

    Raises:
        ArtifactError: it is missing, or has other bytes than the index says.
    """
    key = manifest_key(name, entry.version)
    try:
        content = store.get(key)
    except MissingObjectError:
        content = b""
    if hashlib.sha256(content).hexdigest() != entry.manifest_sha256:
        raise ArtifactError(
            f"{store.url(key)} is missing or damaged; publish the same model again to repair it"
        )
    release = manifest_from(content, store.url(key))
    if (release.name, release.version) != (name, entry.version):
        raise ArtifactError(f"{store.url(key)} is the manifest of {release.name} {release.version}")
    return release


def manifest_from(content: bytes, where: str) -> Release:
    """A manifest from its bytes. Raises ArtifactError."""
    try:
        return Release.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            f"{where} is no Release of this version: {first['msg']}; delete that version and "
            "publish it again"
        ) from None


def _as_number(ref: str) -> int | None:
    return int(ref) if ref.isascii() and ref.isdecimal() and len(ref) < 10 else None


def _listed(store: Store, name: str, index: ReleaseIndex, number: int) -> CatalogEntry:
    release = read_manifest(store, name, index.versions[number - 1])
    return CatalogEntry(number, release, index.aliases_of(number))
