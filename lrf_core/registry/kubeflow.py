"""Kubeflow Model Registry: a registered model, a version per release, its artifact for KServe."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeVar

import tenacity
from model_registry.types import ModelArtifact, ModelVersion, RegisteredModel
from mr_openapi import ArtifactState
from mr_openapi.exceptions import ApiException

from lrf_core.artifacts import Release
from lrf_core.registry.base import (
    ALIAS,
    MODEL_DIGEST,
    RUN_ID,
    Registration,
    UnreachableRegistryError,
    metrics,
    not_registered,
    properties,
    refuse_another_model,
)
from lrf_core.registry.kubeflow_client import Client, Connection

_logger = logging.getLogger("lrf")
_Resource = TypeVar("_Resource")
_Answer = TypeVar("_Answer")

_AUTHOR = "lrf"
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class KubeflowRegistry:
    """See `Registry` for what each method promises.

    Attributes:
        attempts: how often a call is made that the registry does not answer.
    """

    connection: Connection
    attempts: int = 4

    @classmethod
    def open(cls, address: str) -> KubeflowRegistry:
        """Open with the token and the CA that `Connection.from_environment` finds."""
        return cls(Connection.from_environment(address))

    def check(self) -> None:
        self.call(_reach)

    def register(self, release: Release, number: int, *, run_id: str | None = None) -> Registration:
        """Complete, in this order: registered model, version, artifact.

        A version or artifact that is there keeps what others wrote into it. `run_id` defaults to
        the variable KFP_RUN_ID.
        """
        run_id = run_id or os.environ.get("KFP_RUN_ID") or None

        async def work(client: Client) -> Registration:
            model = await _complete_model(client, release)
            version = await self._complete_version(client, model, release, number, run_id)
            artifact = await _complete_artifact(client, version, release)
            return _registration(model, version, artifact)

        registration = self.call(work)
        _logger.info(
            "%s %s is version %s in the model registry at %s",
            release.name,
            release.version,
            registration.id,
            self.connection.address,
        )
        return registration

    def set_alias(self, release: Release, number: int, alias: str) -> None:
        """Kept as a property of the registered model: Model Registry has no aliases itself."""

        async def work(client: Client) -> None:
            model = await client.get_registered_model_by_params(release.name)
            if model is None or not await client.get_model_version_by_params(
                model.id, release.version
            ):
                raise not_registered(self.connection.address, release)
            pointed = {f"{ALIAS}{alias}": release.version}
            await _update(model, pointed, {}, client.upsert_registered_model)

        self.call(work)

    def find(self, name: str, version: str) -> Registration | None:
        async def work(client: Client) -> Registration | None:
            model = await client.get_registered_model_by_params(name)
            found = model and await client.get_model_version_by_params(model.id, version)
            artifact = found and await client.get_model_artifact_by_params(name, found.id)
            return _registration(model, found, artifact) if artifact else None

        return self.call(work)

    async def _complete_version(
        self,
        client: Client,
        model: RegisteredModel,
        release: Release,
        number: int,
        run_id: str | None,
    ) -> ModelVersion:
        facts: dict[str, Any] = {
            **properties(release, number, run_id),
            "lrf.number": number,
            # As doubles: whole numbers have nine digits at most there, too few for MACs.
            **metrics(release),
        }
        wanted = ModelVersion(
            name=release.version,
            author=_AUTHOR,
            description=f"{release.name} release {number}, published by lrf",
            custom_properties=facts,
        )

        async def look() -> ModelVersion | None:
            return await client.get_model_version_by_params(model.id, release.version)

        found = await _found_or_made(look, lambda: client.upsert_model_version(wanted, model.id))
        known = found.custom_properties or {}
        refuse_another_model(self.connection.address, release, known.get(MODEL_DIGEST))
        if RUN_ID in known:
            facts.pop(RUN_ID, None)
        return await _update(found, facts, {}, client.upsert_model_version)

    def call(self, work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
        """Do the work, again while the registry does not answer. Raises RegistryError."""

        async def connected() -> _Answer:
            async with self.connection.client() as client:
                return await work(client)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnreachableRegistryError),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        return retrying(lambda: self.connection.run(connected()))


async def _reach(client: Client) -> None:
    """Connecting has made a request already."""


async def _complete_model(client: Client, release: Release) -> RegisteredModel:
    wanted = RegisteredModel(name=release.name, owner=_AUTHOR)

    async def look() -> RegisteredModel | None:
        return await client.get_registered_model_by_params(release.name)

    return await _found_or_made(look, lambda: client.upsert_registered_model(wanted))


async def _complete_artifact(
    client: Client, version: ModelVersion, release: Release
) -> ModelArtifact:
    known = version.custom_properties or {}
    fields: dict[str, Any] = {
        # The layout that KServe's TensorFlow runtime reads.
        "uri": f"{release.location}/saved_model",
        "model_format_name": "tensorflow",
        "model_format_version": _tensorflow(),
        "state": ArtifactState.LIVE,
        **_source(known.get(RUN_ID)),
    }
    facts = {MODEL_DIGEST: release.model_digest}
    wanted = ModelArtifact(name=release.name, custom_properties=facts, **fields)

    async def look() -> ModelArtifact | None:
        return await client.get_model_artifact_by_params(release.name, version.id)

    async def make() -> ModelArtifact:
        return await client.upsert_model_version_artifact(wanted, version.id)

    return await _update(
        await _found_or_made(look, make), facts, fields, client.upsert_model_artifact
    )


async def _found_or_made(
    look: Callable[[], Awaitable[_Resource | None]], make: Callable[[], Awaitable[_Resource]]
) -> _Resource:
    """What is there, else what is made; else what another one made meanwhile."""
    if found := await look():
        return found
    try:
        return await make()
    except ApiException:
        if found := await look():
            return found
        raise


async def _update(
    resource: _Resource,
    facts: dict[str, Any],
    fields: dict[str, Any],
    write: Callable[[_Resource], Awaitable[_Resource]],
) -> _Resource:
    """Write what differs. The properties of others are sent too: the server replaces them all."""
    known: dict[str, Any] = dict(getattr(resource, "custom_properties", None) or {})
    changes = {name: value for name, value in fields.items() if getattr(resource, name) != value}
    if known != {**known, **facts}:
        changes["custom_properties"] = {**known, **facts}
    if not changes:
        return resource
    return await write(resource.model_copy(update=changes))  # type: ignore[attr-defined]


def _source(run_id: str | None) -> dict[str, str]:
    """The run of Kubeflow Pipelines that made the model, as its dashboard links to it."""
    if not run_id:
        return {}
    source = {
        "model_source_kind": "kfp",
        "model_source_class": "pipelinerun",
        "model_source_id": run_id,
    }
    if _NAMESPACE.is_file():
        source["model_source_group"] = _NAMESPACE.read_text().strip()
    return source


def _tensorflow() -> str:
    """The version that wrote the SavedModel; KServe's runtime wants only its first part."""
    for package in ("tensorflow-cpu", "tensorflow"):
        try:
            return version_of(package).partition(".")[0]
        except PackageNotFoundError:
            continue
    return "2"


def _registration(
    model: RegisteredModel, version: ModelVersion, artifact: ModelArtifact
) -> Registration:
    known = version.custom_properties or {}
    aliases = [
        name.removeprefix(ALIAS)
        for name, pointed in (model.custom_properties or {}).items()
        if name.startswith(ALIAS) and pointed == version.name
    ]
    return Registration(
        registry="kubeflow",
        name=model.name,
        version=version.name,
        number=int(known.get("lrf.number", 0)),
        id=str(version.id),
        location=(artifact.uri or "").removesuffix("/saved_model"),
        run_id=known.get(RUN_ID),
        aliases=tuple(sorted(aliases)),
    )
