"""A model registry: versions ask by a property or tag, `lrf.compress: <spec>`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrf_core.registry import open_requests
from lrf_core.registry.requests import RequestSource
from pipelines.controller.outcome import Outcome
from pipelines.controller.sources.base import Asked


@dataclass(frozen=True)
class RegisteredSource:
    """Versions of a registry, released under the property `lrf.name`, else the name that the spec
    has, else that of the registered model."""

    uri: str
    registry: RequestSource

    @classmethod
    def open(cls, uri: str) -> RegisteredSource:
        return cls(uri, open_requests(uri))

    def asked(self) -> Iterator[Asked]:
        for version in self.registry.requests():
            yield Asked(
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

    def tell(self, outcome: Outcome) -> None:
        facts: dict[str, str | float] = {**outcome.properties()}
        facts.update({f"lrf.{name}": value for name, value in outcome.metrics().items()})
        self.registry.report(outcome.note.reference, facts)


def _as_release_name(name: str) -> str | None:
    """What can be used of a registered model's name; None where that is nothing."""
    usable = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).lstrip("._-")
    return usable[:128] or None
