"""Versions in model registries that ask for compression, and what is written back to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from lrf_core.redaction import one_line
from lrf_core.registry import open_registry
from lrf_core.registry.base import RegistryError

# Properties of Kubeflow Model Registry, tags of MLflow.
COMPRESS = "lrf.compress"
MODEL, NAME, STATE = "lrf.model", "lrf.name", "lrf.state"

# Versions in these states are not listed any more; who removes the property asks again.
DONE = ("published", "refused")


@dataclass(frozen=True)
class CompressionRequest:
    """A version that asks.

    Attributes:
        id: names it in `AskingRegistry.tell`.
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


class AskingRegistry(Protocol):
    """Every method raises RegistryError as those of `Registry` do.

    Attributes:
        fetched: how addresses begin that only the registry itself can read.
    """

    fetched: ClassVar[tuple[str, ...]]

    def asking(self) -> list[CompressionRequest]:
        """The versions that ask for compression and are not done."""

    def fetch(self, model: str, folder: Path) -> None:
        """Write what is at an address that begins with one of `fetched` into a folder."""

    def tell(self, version: str, facts: Mapping[str, str | float]) -> None:
        """Write properties into a version, and leave those of others alone.

        A version that is gone is no error.

        Args:
            version: `CompressionRequest.id`.
            facts: a property without a value any more is the empty text.
        """


def open_asking(uri: str) -> AskingRegistry:
    """The registry at `kubeflow+http(s)://...` or `mlflow+http(s)://...`, to be read.

    Raises:
        RegistryError: as `open_registry`.
    """
    registry = open_registry(uri)
    # Imported after that, which explains a client that is missing.
    if uri.lower().startswith("kubeflow+"):
        from lrf_core.registry.kubeflow import KubeflowRegistry
        from lrf_core.registry.kubeflow_asking import KubeflowAsking

        if isinstance(registry, KubeflowRegistry):
            return KubeflowAsking(registry)
    else:
        from lrf_core.registry.mlflow import MlflowRegistry
        from lrf_core.registry.mlflow_asking import MlflowAsking

        if isinstance(registry, MlflowRegistry):
            return MlflowAsking(registry)
    raise RegistryError(
        f"registry {one_line(uri, 200)!r} holds no versions that could ask for compression"
    )
