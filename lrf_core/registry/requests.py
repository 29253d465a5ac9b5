"""Requests for compression that versions in model registries hold, and reports on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

# Properties of Kubeflow Model Registry, tags of MLflow.
COMPRESS = "lrf.compress"
MODEL, NAME, STATE = "lrf.model", "lrf.name", "lrf.state"

# Versions in these states are not listed any more; who removes the property requests again.
DONE = ("published", "refused")


@dataclass(frozen=True)
class CompressionRequest:
    """A version that is to be compressed.

    Attributes:
        id: names it in `RequestSource.report`.
        name: of its registered model.
        model: address of the file, or of a folder with one; the property `lrf.model`, else what
            the version itself says.
        spec: value of `lrf.compress`.
        release_name: value of `lrf.name`, None without one.
    """

    id: str
    name: str
    model: str
    spec: str
    release_name: str | None


class RequestSource(Protocol):
    """A registry whose versions can request compression.

    Every method raises RegistryError as those of `Registry` do.

    Attributes:
        own_schemes: how addresses begin that only the registry itself can read.
    """

    own_schemes: ClassVar[tuple[str, ...]]

    def requests(self) -> list[CompressionRequest]:
        """The versions that request compression and are not done."""

    def fetch(self, model: str, folder: Path) -> None:
        """Write what is at an address that begins with one of `own_schemes` into a folder."""

    def report(self, version: str, facts: Mapping[str, str | float]) -> None:
        """Write properties into a version, and leave those of others alone.

        A version that is gone is no error.

        Args:
            version: `CompressionRequest.id`.
            facts: a property without a value any more is the empty text.
        """
