"""Versions that ask for compression: found in Kubeflow's Model Registry and MLflow, and told."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from answering import answering, status
from mlflow.tracking import MlflowClient
from model_registry.types import ModelArtifact, ModelVersion, RegisteredModel
from model_registry_server import ModelRegistryServer
from registry_case import RegistryCase

from lrf_core.registry import RegistryError, open_requests
from lrf_core.registry.kubeflow import KubeflowRegistry
from lrf_core.registry.kubeflow_client import Client
from lrf_core.registry.requests import CompressionRequest, RequestSource

MODEL = "s3://models/digits.keras"


@dataclass(frozen=True)
class Asking:
    """A registry, and how somebody registers a version with properties there.

    Attributes:
        add: of a registered model's name and properties; gives the version's id.
        properties: of a version, by its id.
    """

    registry: RequestSource
    add: Callable[[str, dict[str, Any]], str]
    properties: Callable[[str], dict[str, Any]]


@pytest.fixture
def kubeflow(model_registry: ModelRegistryServer) -> Asking:
    registry = KubeflowRegistry.open(model_registry.address)

    def add(name: str, properties: dict[str, Any]) -> str:
        async def work(client: Client) -> str:
            model = await client.get_registered_model_by_params(name)
            model = model or await client.upsert_registered_model(RegisteredModel(name=name))
            number = len(model_registry.resources["model_versions"])
            version = await client.upsert_model_version(
                ModelVersion(name=f"v{number}", custom_properties=properties), model.id
            )
            await client.upsert_model_version_artifact(
                ModelArtifact(name="weights", uri=MODEL), version.id
            )
            return f"{name}/{version.name}/{version.id}"

        return registry.call(work)

    def properties(version: str) -> dict[str, Any]:
        stored = model_registry.resources["model_versions"][version.rpartition("/")[2]]
        kinds = ("string_value", "double_value")
        return {
            name: next(value[kind] for kind in kinds if kind in value)
            for name, value in stored.get("customProperties", {}).items()
        }

    return Asking(open_requests(f"kubeflow+{model_registry.address}"), add, properties)


@pytest.fixture
def mlflow(mlflow_case: RegistryCase) -> Asking:
    address = mlflow_case.uri.removeprefix("mlflow+")
    client = MlflowClient(address, address)

    def add(name: str, properties: dict[str, Any]) -> str:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        made = client.create_model_version(name, MODEL, tags=properties, await_creation_for=0)
        return f"{name}/{made.version}"

    def properties(version: str) -> dict[str, Any]:
        name, _, number = version.rpartition("/")
        return dict(client.get_model_version(name, number).tags)

    return Asking(open_requests(mlflow_case.uri), add, properties)


@pytest.fixture(params=["kubeflow", "mlflow"])
def case(request: pytest.FixtureRequest) -> Asking:
    made: Asking = request.getfixturevalue(request.param)
    return made


def asking(case: Asking, name: str) -> list[CompressionRequest]:
    """Of one registered model: one server serves many tests."""
    return [version for version in case.registry.requests() if version.name == name]


def test_versions_that_ask_are_found_until_they_are_done(case: Asking) -> None:
    name = f"digits-{uuid.uuid4().hex[:6]}"
    case.add(name, {})
    asks = case.add(name, {"lrf.compress": "small"})
    more = {"lrf.compress": "small", "lrf.name": "other", "lrf.model": "s3://b/k.h5"}
    named = case.add(name, more)
    first, second = sorted(asking(case, name), key=lambda each: each.id)
    assert first == CompressionRequest(asks, name, MODEL, "small", None)
    assert second == CompressionRequest(named, name, "s3://b/k.h5", "small", "other")

    case.registry.report(asks, {"lrf.state": "running", "lrf.reason": ""})
    assert len(asking(case, name)) == 2
    case.registry.report(asks, {"lrf.state": "published", "lrf.params_after": 50.5})
    case.registry.report(named, {"lrf.state": "refused", "lrf.reason": "3 points lost"})
    assert asking(case, name) == []
    told = case.properties(asks)
    assert told["lrf.state"] == "published"
    assert float(told["lrf.params_after"]) == 50.5
    assert told["lrf.compress"] == "small"  # what others wrote stays
    assert case.properties(named)["lrf.reason"] == "3 points lost"


def test_telling_again_changes_nothing_and_a_value_can_be_emptied(case: Asking) -> None:
    name = f"digits-{uuid.uuid4().hex[:6]}"
    asks = case.add(name, {"lrf.compress": "small"})
    for reason in ("no space left", "no space left", ""):
        case.registry.report(asks, {"lrf.state": "failed", "lrf.reason": reason})
        assert case.properties(asks).get("lrf.reason", "") == reason
    assert len(asking(case, name)) == 1


def test_a_version_that_is_gone_is_no_error(case: Asking) -> None:
    name = f"digits-{uuid.uuid4().hex[:6]}"
    asks = case.add(name, {"lrf.compress": "small"})
    case.registry.report(asks.rpartition("/")[0] + "/77777", {"lrf.state": "failed"})


def test_all_pages_are_read(kubeflow: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrf_core.registry.kubeflow_requests._PAGE", 2)
    versions = {kubeflow.add("digits", {"lrf.compress": "small"}) for _ in range(5)}
    assert {version.id for version in kubeflow.registry.requests()} == versions


@pytest.mark.parametrize("kind", ["kubeflow", "mlflow"])
def test_a_registry_that_fails_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(status(401)) as address:
        registry = open_requests(f"{kind}+{address}")
        with pytest.raises(RegistryError) as caught:
            registry.requests()
    assert "\n" not in str(caught.value)


def test_a_bucket_holds_no_versions_that_ask() -> None:
    with pytest.raises(RegistryError, match="unknown kind"):
        open_requests("ftp://host")
