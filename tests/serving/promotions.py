"""A store with two releases, a cluster that serves the old one, and an ingress to it."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import local_releases
import numpy as np
import pytest
from kserve_api import SERVICE, KServe, serving
from model_server import Model, ModelServer, served

from lrf_core.artifacts.promotion import Promotion
from lrf_core.export.saved_model import SavedModel
from lrf_core.spec import PromoteSpec
from lrf_core.stages.promote import promote


@functools.cache
def _saved_model(version: str, folder: Path) -> Model:
    return SavedModel(folder / local_releases.NAME / version / "saved_model" / "1").run


@dataclass(frozen=True)
class Made:
    folder: Path
    versions: dict[str, str]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("releases")
    return Made(folder, local_releases.make_store(folder))


@dataclass
class World:
    """All that a promotion meets.

    Attributes:
        instead: what a version answers in place of its own model, by version.
    """

    cluster: KServe
    ingress: ModelServer
    store: Path
    made: Made
    instead: dict[str, Model]

    def uri(self, kind: str) -> str:
        """The storageUri of the "old" or the "new" release."""
        version = self.made.versions[kind]
        return f"{self.store.as_uri()}/{local_releases.NAME}/{version}/saved_model"

    def settings(self, **changes: Any) -> PromoteSpec:
        quick = {"poll": 0.005, "wait": 5.0, "settle": 0.05, "interval": 0.02}
        return PromoteSpec.model_validate(
            {"service": SERVICE, "url": self.ingress.url, **quick, **changes}
        )

    def promote(self, ref: str = "latest", **changes: Any) -> Promotion:
        return promote(self.store.as_uri(), local_releases.NAME, ref, self.settings(**changes))

    def wrong(self, kind: str = "new") -> None:
        """Let a release answer with something else than it should."""
        own = _saved_model(self.made.versions[kind], self.made.folder)
        self.instead[self.made.versions[kind]] = lambda inputs: {
            name: np.roll(values, 1, axis=-1) for name, values in own(inputs).items()
        }

    def aliases(self) -> dict[str, int]:
        from lrf_core.releases import resolve
        from lrf_core.storage import open_store

        store, found = open_store(self.store.as_uri()), {}
        for number in (1, 2):
            for alias in resolve(store, local_releases.NAME, str(number)).aliases:
                found[alias] = number
        return found

    def restart(self) -> None:
        """The old release is served, and nothing has happened yet."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(self.made.folder, self.store)
        self.cluster.revisions.clear()
        self.cluster.create(uri=self.uri("old"))

    def model_at(self, host: str) -> Model | None:
        uri = self.cluster.served(host)
        version = uri.split("/")[-2] if uri else ""
        if version in self.instead:
            return self.instead[version]
        return _saved_model(version, self.made.folder) if version.startswith("v-") else None


@pytest.fixture
def world(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    store = tmp_path / "store"
    cluster, ingress = KServe(), ModelServer(lambda host: None)
    found = World(cluster, ingress, store, made, {})
    ingress.model_at = found.model_at
    found.restart()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(cluster, tmp_path / "kubeconfig"), served(ingress):
        yield found


@pytest.fixture
def raw(world: World) -> World:
    """The same, deployed without Knative."""
    world.cluster.mode = "RawDeployment"
    world.restart()
    return world


def shares_of_new(world: World) -> list[int]:
    """Percent of the traffic that the new release got, each time it changed."""
    found: list[int] = []
    for shares in world.cluster.history:
        share = shares.get(world.uri("new"), 0)
        if not found or found[-1] != share:
            found.append(share)
    return found


def restored(world: World, before: dict[str, Any]) -> bool:
    return world.cluster.spec_of_user() == before and shares_of_new(world)[-1] == 0
