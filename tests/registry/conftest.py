"""Fixtures: one case for each kind of registry, so that all of them pass the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cutting_proxy import proxy_of
from mlflow_server import running_mlflow
from model_registry_server import TOKEN, ModelRegistryServer, load_schema, running
from openapi_core import OpenAPI
from registry_case import RegistryCase
from seaweed import Seaweed

from lrf_core.artifacts import Release
from lrf_core.storage import open_store


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests."""
    for name in (
        "KFP_RUN_ID",
        "KF_PIPELINES_SA_TOKEN_PATH",
        "KUBEFLOW_REGISTRY_CA",
        "KUBEFLOW_REGISTRY_TOKEN",
        "KUBEFLOW_REGISTRY_TOKEN_FILE",
        "MLFLOW_EXPERIMENT_ID",
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def model_registry_schema() -> OpenAPI:
    return load_schema()


@pytest.fixture(scope="session")
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA to trust: every call loads certificates, and the system's take 0.1 s."""
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return file


@pytest.fixture
def model_registry(
    model_registry_schema: OpenAPI, one_certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModelRegistryServer]:
    """A server that runs; the environment has its token."""
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", TOKEN)
    monkeypatch.setenv("KUBEFLOW_REGISTRY_CA", str(one_certificate))
    with running(ModelRegistryServer(model_registry_schema, newest=True)) as server:
        yield server
    assert server.broken == []


@pytest.fixture
def old_model_registry(
    model_registry_schema: OpenAPI, one_certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModelRegistryServer]:
    """As it was before mid 2026: its API has no v1."""
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", TOKEN)
    monkeypatch.setenv("KUBEFLOW_REGISTRY_CA", str(one_certificate))
    with running(ModelRegistryServer(model_registry_schema, newest=False)) as server:
        yield server
    assert server.broken == []


@pytest.fixture(scope="session")
def mlflow_address(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_mlflow(tmp_path_factory.mktemp("mlflow"), seaweed) as address:
        yield address


@pytest.fixture
def mlflow_case(
    mlflow_address: str, s3_settings: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RegistryCase]:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = open_store(f"s3://{s3_settings.bucket}/registry")

    def versions(release: Release) -> int:
        client = MlflowClient(mlflow_address, mlflow_address)
        return len(client.search_model_versions(f"name = '{release.name}'"))

    with proxy_of(mlflow_address) as proxy:
        yield RegistryCase("mlflow", f"mlflow+{proxy.address}", store, versions, proxy)


@pytest.fixture
def kubeflow_case(model_registry: ModelRegistryServer, tmp_path: Path) -> Iterator[RegistryCase]:
    yield from _kubeflow_case(model_registry, tmp_path)


@pytest.fixture
def old_kubeflow_case(
    old_model_registry: ModelRegistryServer, tmp_path: Path
) -> Iterator[RegistryCase]:
    yield from _kubeflow_case(old_model_registry, tmp_path)


def _kubeflow_case(server: ModelRegistryServer, folder: Path) -> Iterator[RegistryCase]:
    def versions(release: Release) -> int:
        return len(server.named("model_versions", release.version))

    store = open_store(str(folder / "store"))
    with proxy_of(server.address) as proxy:
        yield RegistryCase("kubeflow", f"kubeflow+{proxy.address}", store, versions, proxy)


@pytest.fixture
def bucket_case(tmp_path: Path) -> RegistryCase:
    return RegistryCase("bucket", "bucket", open_store(str(tmp_path / "store")), lambda _: 1)
