"""The embedded default: a release is registered by being in its store's index."""

from __future__ import annotations

from dataclasses import dataclass

from lrf_core.artifacts import Release
from lrf_core.registry.base import (
    Registration,
    RegistryError,
    not_registered,
    refuse_another_model,
)
from lrf_core.releases import CatalogEntry, read_index, resolve, set_alias
from lrf_core.releases.index import LATEST
from lrf_core.storage import Store


@dataclass(frozen=True)
class BucketRegistry:
    """What `lrf_core.releases` keeps in the store. See `Registry` for what each method promises."""

    store: Store

    def check(self) -> None:
        self.store.check()

    def register(self, release: Release, number: int, *, run_id: str | None = None) -> Registration:
        """Publishing has put it into the index; this checks that it is there, and as it says."""
        listed = self._listed(release.name, release.version)
        if listed is None:
            raise RegistryError(
                f"{self.store.url()} does not list {release.name} {release.version}; publish it "
                "again to complete it"
            )
        refuse_another_model(self.store.url(), release, listed.release.model_digest)
        if listed.number != number:
            raise RegistryError(
                f"{self.store.url()} lists {release.name} {release.version} as number "
                f"{listed.number}, not {number}; read the number from its index"
            )
        return _registration(listed)

    def set_alias(self, release: Release, number: int, alias: str) -> None:
        """`latest` is left alone: it moves with publishing."""
        listed = self._listed(release.name, release.version)
        if listed is None:
            raise not_registered(self.store.url(), release)
        if alias != LATEST:
            set_alias(self.store, release.name, alias, listed.number)

    def find(self, name: str, version: str) -> Registration | None:
        listed = self._listed(name, version)
        return _registration(listed) if listed else None

    def _listed(self, name: str, version: str) -> CatalogEntry | None:
        index = read_index(self.store, name)
        if index is None or index.number_of(version) is None:
            return None
        return resolve(self.store, name, version)


def _registration(listed: CatalogEntry) -> Registration:
    release = listed.release
    return Registration(
        registry="bucket",
        name=release.name,
        version=release.version,
        number=listed.number,
        id=f"{release.name}/{listed.number}",
        location=release.location,
        aliases=tuple(sorted(listed.aliases)),
    )
