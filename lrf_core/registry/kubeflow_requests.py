"""Kubeflow Model Registry: versions ask by the custom property `lrf.compress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from model_registry.types import ModelArtifact, ModelVersion
from mr_openapi.exceptions import NotFoundException

from lrf_core.registry.base import RegistryError
from lrf_core.registry.kubeflow import KubeflowRegistry
from lrf_core.registry.kubeflow_client import Client
from lrf_core.registry.requests import COMPRESS, DONE, MODEL, NAME, STATE, CompressionRequest

_PAGE = 100


@dataclass(frozen=True)
class KubeflowRequests:
    """See `RequestSource` for what each method promises. Ids are `<model>/<version>/<id>`."""

    own_schemes: ClassVar[tuple[str, ...]] = ()
    registry: KubeflowRegistry

    def requests(self) -> list[CompressionRequest]:
        async def work(client: Client) -> list[CompressionRequest]:
            asking = [version for version in await _versions(client) if _asks(version)]
            return [await _asking(client, version) for version in asking]

        return self.registry.call(work)

    def fetch(self, model: str, folder: Path) -> None:
        raise RegistryError(f"{model:.200} is nothing that the model registry itself can read")

    def report(self, version: str, facts: Mapping[str, str | float]) -> None:
        async def work(client: Client) -> None:
            found = await client.get_model_version_by_id(version.rpartition("/")[2])
            known = dict(found.custom_properties or {}) if found else {}
            # All are sent: the server replaces them as a whole.
            told = {**known, **facts}
            if found and told != known:
                await client.upsert_model_version(
                    found.model_copy(update={"custom_properties": told})
                )

        self.registry.call(work)


async def _versions(client: Client) -> list[ModelVersion]:
    """All versions of all models: older servers cannot look for a property themselves."""
    found: list[ModelVersion] = []
    token: str | None = None
    async with client.get_client() as api:
        while True:
            page = await api.get_model_versions(page_size=str(_PAGE), next_page_token=token)
            found += [ModelVersion.from_basemodel(each) for each in page.items or []]
            token = page.next_page_token
            if not token:
                return found


def _asks(version: ModelVersion) -> bool:
    known = version.custom_properties or {}
    archived = str(getattr(version.state, "value", version.state)) == "ARCHIVED"
    return bool(known.get(COMPRESS)) and known.get(STATE) not in DONE and not archived


async def _asking(client: Client, version: ModelVersion) -> CompressionRequest:
    known = version.custom_properties or {}
    model = await client.get_registered_model_by_id(version.registered_model_id)
    name = model.name if model else ""
    return CompressionRequest(
        id=f"{name}/{version.name}/{version.id}",
        name=name,
        model=str(known.get(MODEL) or await _model_uri(client, str(version.id))),
        spec=str(known[COMPRESS]),
        release_name=str(known[NAME]) if known.get(NAME) else None,
    )


async def _model_uri(client: Client, version: str) -> str:
    """Of the version's model artifact; empty without one."""
    try:
        artifacts = await client.get_model_version_artifacts(version)
    except NotFoundException:  # removed meanwhile
        return ""
    uris = [each.uri for each in artifacts if isinstance(each, ModelArtifact) and each.uri]
    return str(uris[0]) if uris else ""
