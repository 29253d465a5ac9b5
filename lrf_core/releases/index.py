"""The list of a name's versions and aliases: one object, changed by compare-and-swap only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_random

from lrf_core.artifacts import Record, Release, ReleaseSummary
from lrf_core.artifacts.seal import read_sealed, sealed_json
from lrf_core.errors import StorageError
from lrf_core.releases.layout import index_key
from lrf_core.storage import Store

LATEST, CHAMPION, PREVIOUS = "latest", "champion", "previous"

_GIVE_UP_S = 120.0


class Listing(Record):
    """What a list of releases shows of one, as its manifest has it.

    Attributes:
        published: when, ISO 8601.
        model_digest: of the model that was judged.
        signed_by: fingerprint of the public key; None if it is not signed.
        overridden_by: who let it through; None if it passed.
    """

    published: str
    model_digest: str
    summary: ReleaseSummary
    signed_by: str | None
    overridden_by: str | None

    @classmethod
    def of(cls, release: Release) -> Listing:
        """From a manifest."""
        return cls(
            published=release.lineage.created,
            model_digest=release.model_digest,
            summary=release.summary,
            signed_by=release.signed_by,
            overridden_by=release.override.by if release.override else None,
        )


class IndexEntry(Record):
    """A version that readers see.

    Attributes:
        manifest_sha256, signature_sha256: of these two files (hex); no other file names them.
        listing: None in entries of index version 1: the manifest has it.
    """

    version: str
    manifest_sha256: str
    signature_sha256: str | None = None
    listing: Listing | None = None

    @model_serializer(mode="wrap")
    def _as_written(self, content: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An entry of index version 1 keeps its bytes, which the seal is of."""
        written: dict[str, Any] = content(self)
        if self.listing is None:
            del written["listing"]
        return written


class ReleaseIndex(Record):
    """The versions of a name in the order they became visible, and the aliases.

    Attributes:
        versions: the first has number 1.
        aliases: to numbers.
    """

    schema_version: Literal[1, 2] = 2
    versions: tuple[IndexEntry, ...] = ()
    aliases: dict[str, int] = Field(default_factory=dict)

    def number_of(self, version: str) -> int | None:
        """The number of a version; None if it is not visible."""
        for number, entry in enumerate(self.versions, 1):
            if entry.version == version:
                return number
        return None

    def aliases_of(self, number: int) -> tuple[str, ...]:
        """The aliases of a number, sorted."""
        return tuple(sorted(alias for alias, to in self.aliases.items() if to == number))

    def with_version(self, entry: IndexEntry) -> ReleaseIndex:
        """With one more version, which is the latest; the same if it is there already."""
        if self.number_of(entry.version) is not None:
            return self
        versions = (*self.versions, entry)
        aliases = {**self.aliases, LATEST: len(versions)}
        return ReleaseIndex(versions=versions, aliases=aliases)

    def with_alias(self, alias: str, number: int) -> ReleaseIndex:
        """With an alias moved; the champion so far becomes the previous one in the same step."""
        moved = {**self.aliases, alias: number}
        replaced = self.aliases.get(CHAMPION)
        if alias == CHAMPION and replaced not in (None, number):
            moved[PREVIOUS] = self.aliases[CHAMPION]
        return ReleaseIndex(versions=self.versions, aliases=moved)


def read_index(store: Store, name: str) -> ReleaseIndex | None:
    """The index of a name; None if nothing was published under it.

    Raises:
        ArtifactError: it is damaged.
        StorageError: the store cannot be read.
    """
    stored = store.read(index_key(name))
    return None if stored is None else _decoded(store, name, stored.content)


def change_index(
    store: Store, name: str, change: Callable[[ReleaseIndex], ReleaseIndex]
) -> ReleaseIndex:
    """Apply a change to the index as it is then, over and over until nobody else was faster.

    Raises:
        ArtifactError: it is damaged; and what `change` raises.
        StorageError: the store cannot be written, or others were faster for two minutes.
    """

    def swap() -> ReleaseIndex | None:
        stored = store.read(index_key(name))
        before = _decoded(store, name, stored.content) if stored else ReleaseIndex()
        after = change(before)
        if after == before:
            return before
        written = store.replace(index_key(name), sealed_json(after), stored.tag if stored else None)
        return after if written else None

    attempts = Retrying(
        retry=retry_if_result(lambda changed: changed is None),
        # At random: those who lost against one writer must not meet again.
        wait=wait_random(0.0, 0.2),
        stop=stop_after_delay(_GIVE_UP_S),
    )
    try:
        changed = attempts(swap)
    except RetryError:
        raise StorageError(
            f"{store.url(index_key(name))} was changed by others all the time for "
            f"{_GIVE_UP_S:g} s; run it again"
        ) from None
    assert changed is not None  # noqa: S101 - what the retrying stops at
    return changed


def _decoded(store: Store, name: str, content: bytes) -> ReleaseIndex:
    return read_sealed(ReleaseIndex, content, store.url(index_key(name)))
