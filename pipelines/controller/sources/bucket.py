"""A bucket prefix, or a folder: models ask by lying there, or by a small file beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from lrf_core.registry.requests import COMPRESS
from lrf_core.storage import Entry, MissingObjectError, Store
from pipelines.controller.outcome import Outcome
from pipelines.controller.sources.base import Asked, is_model

SIDECAR, OUTCOME = ".lrf.yaml", ".lrf.json"
_SIDECAR_SETTINGS = {COMPRESS, "name"}


@dataclass(frozen=True)
class BucketSource:
    """Models below a prefix. `<key>.lrf.yaml` asks with `lrf.compress: <spec>`, and maybe `name`.

    Attributes:
        spec: for models that have no such file; None where those do not ask.
    """

    uri: str
    store: Store
    spec: str | None = None
    # What the small files asked for, by key; each is read once.
    _read: dict[str, tuple[Entry, Asked]] = field(default_factory=dict, compare=False)

    def asked(self) -> Iterator[Asked]:
        entries = {entry.key: entry for entry in self.store.entries()}
        for key in sorted(filter(is_model, entries)):
            mark = f"{entries[key].size} {entries[key].mark}"
            if sidecar := entries.get(f"{key}{SIDECAR}"):
                yield replace(self._as_read(key, sidecar), mark=mark)
            elif self.spec is not None:
                yield Asked(key, self.store.url(key), self.spec, mark=mark)

    def fetches(self, model: str) -> bool:
        return False

    def fetch(self, model: str, folder: Path) -> None:
        """Never asked for: every model here is in a store."""

    def tell(self, outcome: Outcome) -> None:
        document = json.dumps(outcome.document(), indent=2).encode() + b"\n"
        self.store.put(f"{outcome.note.reference}{OUTCOME}", document)

    def _as_read(self, key: str, sidecar: Entry) -> Asked:
        known = self._read.get(key)
        if known is None or known[0] != sidecar:
            known = self._read[key] = (sidecar, self._by_sidecar(key))
        return known[1]

    def _by_sidecar(self, key: str) -> Asked:
        where, url = f"{key}{SIDECAR}", self.store.url(key)
        try:
            content = yaml.safe_load(self.store.get(where))
        except MissingObjectError:
            return Asked(key, url, "", problem=f"{where} was removed meanwhile")
        except (yaml.YAMLError, UnicodeDecodeError):
            return Asked(key, url, "", problem=f"{where} is not valid YAML")
        if not isinstance(content, dict) or not isinstance(content.get(COMPRESS), str):
            return Asked(key, url, "", problem=f"{where} must say `{COMPRESS}: <name of a spec>`")
        if unknown := set(content) - _SIDECAR_SETTINGS:
            named = ", ".join(sorted(map(str, unknown)))
            known = ", ".join(sorted(_SIDECAR_SETTINGS))
            problem = f"{where} has unknown settings: {named:.200} (known: {known})"
            return Asked(key, url, "", problem=problem)
        name = content.get("name")
        return Asked(key, url, content[COMPRESS], None if name is None else str(name))
