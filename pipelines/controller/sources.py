"""Where models with requests come from: a bucket prefix or a folder, or a model registry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import yaml

from lrf_core.files.model_names import is_model_name
from lrf_core.registry import open_requests
from lrf_core.registry.requests import COMPRESS, RequestSource
from lrf_core.storage import Entry, MissingObjectError, Store, open_store
from pipelines.controller.request import Outcome
from pipelines.controller.settings import SourceSettings


@dataclass(frozen=True)
class IncomingModel:
    """A model whose source requests compression.

    Attributes:
        reference: what it is called in its source.
        model: address of its file, or of a folder with one.
        spec: name of the spec to compress it by.
        name: to release it under; None for the one in the spec, else `default_name`.
        default_name: None for the model's own.
        mark: changes with the model's content, where the source sees that; empty otherwise.
        problem: why it cannot be done, where the source sees that; empty otherwise.
    """

    reference: str
    model: str
    spec: str
    name: str | None = None
    default_name: str | None = None
    mark: str = ""
    problem: str = ""


class Source(Protocol):
    """Raises LrfError when it cannot be reached, in bounded time."""

    @property
    def uri(self) -> str:
        """As in the settings; names the source in logs and metrics."""

    def incoming(self) -> Iterator[IncomingModel]:
        """All models with a request, the old ones too."""

    def fetches(self, model: str) -> bool:
        """Whether only the source itself can read what is at this address."""

    def fetch(self, model: str, folder: Path) -> None:
        """Write what is there into a folder."""

    def report(self, outcome: Outcome) -> None:
        """Write the state of a model where users look for it; may be called twice for one state."""


SIDECAR, OUTCOME = ".lrf.yaml", ".lrf.json"
_SIDECAR_SETTINGS = {COMPRESS, "name"}


@dataclass(frozen=True)
class BucketSource:
    """Models below a prefix. `<key>.lrf.yaml` asks with `lrf.compress: <spec>`, and maybe `name`.

    Attributes:
        spec: for models that have no such file; None if those do not ask.
    """

    uri: str
    store: Store
    spec: str | None = None
    # What the small files say, by key; each is read once.
    _read: dict[str, tuple[Entry, IncomingModel]] = field(default_factory=dict, compare=False)

    def incoming(self) -> Iterator[IncomingModel]:
        entries = {entry.key: entry for entry in self.store.entries()}
        for key in sorted(filter(is_model_name, entries)):
            mark = f"{entries[key].size} {entries[key].mark}"
            if sidecar := entries.get(f"{key}{SIDECAR}"):
                yield replace(self._as_read(key, sidecar), mark=mark)
            elif self.spec is not None:
                yield IncomingModel(key, self.store.url(key), self.spec, mark=mark)

    def fetches(self, model: str) -> bool:
        return False

    def fetch(self, model: str, folder: Path) -> None:
        """Never called: every model here is in a store."""

    def report(self, outcome: Outcome) -> None:
        document = json.dumps(outcome.document(), indent=2).encode() + b"\n"
        self.store.put(f"{outcome.note.reference}{OUTCOME}", document)

    def _as_read(self, key: str, sidecar: Entry) -> IncomingModel:
        known = self._read.get(key)
        if known is None or known[0] != sidecar:
            known = self._read[key] = (sidecar, self._by_sidecar(key))
        return known[1]

    def _by_sidecar(self, key: str) -> IncomingModel:
        where, url = f"{key}{SIDECAR}", self.store.url(key)
        try:
            content = yaml.safe_load(self.store.get(where))
        except MissingObjectError:
            return IncomingModel(key, url, "", problem=f"{where} was removed meanwhile")
        except (yaml.YAMLError, UnicodeDecodeError):
            return IncomingModel(key, url, "", problem=f"{where} is not valid YAML")
        if not isinstance(content, dict) or not isinstance(content.get(COMPRESS), str):
            return IncomingModel(
                key, url, "", problem=f"{where} must say `{COMPRESS}: <name of a spec>`"
            )
        if unknown := set(content) - _SIDECAR_SETTINGS:
            named = ", ".join(sorted(map(str, unknown)))
            known = ", ".join(sorted(_SIDECAR_SETTINGS))
            problem = f"{where} has unknown settings: {named:.200} (known: {known})"
            return IncomingModel(key, url, "", problem=problem)
        name = content.get("name")
        return IncomingModel(key, url, content[COMPRESS], None if name is None else str(name))


@dataclass(frozen=True)
class RegisteredSource:
    """Versions of a registry, released under the property `lrf.name`, else the name that the spec
    has, else that of the registered model."""

    uri: str
    registry: RequestSource

    @classmethod
    def open(cls, uri: str) -> RegisteredSource:
        return cls(uri, open_requests(uri))

    def incoming(self) -> Iterator[IncomingModel]:
        for version in self.registry.requests():
            yield IncomingModel(
                version.id,
                version.model,
                version.spec,
                version.release_name,
                _as_release_name(version.name),
            )

    def fetches(self, model: str) -> bool:
        return bool(self.registry.own_schemes) and model.startswith(self.registry.own_schemes)

    def fetch(self, model: str, folder: Path) -> None:
        self.registry.fetch(model, folder)

    def report(self, outcome: Outcome) -> None:
        facts: dict[str, str | float] = {**outcome.properties()}
        facts.update({f"lrf.{name}": value for name, value in outcome.metrics().items()})
        self.registry.report(outcome.note.reference, facts)


def _as_release_name(name: str) -> str | None:
    """What can be used of a registered model's name; None if that is nothing."""
    usable = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).lstrip("._-")
    return usable[:128] or None


__all__ = ["IncomingModel", "Source", "open_source"]


def open_source(settings: SourceSettings) -> Source:
    """The source at an address. No request is made yet.

    Raises:
        StorageError, RegistryError: an address that cannot be used.
    """
    if settings.uri.startswith(("kubeflow+", "mlflow+")):
        from pipelines.controller.sources import RegisteredSource

        return RegisteredSource.open(settings.uri)
    return BucketSource(settings.uri, open_store(settings.uri), settings.spec)
