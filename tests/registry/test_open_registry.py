"""Addresses of registries: what is understood, what is refused, and that nothing leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lrf_core.errors import EXIT_BAD_INPUT
from lrf_core.registry import RegistryError, open_registry
from lrf_core.registry.bucket import BucketRegistry
from lrf_core.registry.kubeflow import KubeflowRegistry
from lrf_core.registry.mlflow import MlflowRegistry
from lrf_core.storage import open_store


def test_each_kind_is_opened_without_a_request(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert isinstance(open_registry("bucket", store), BucketRegistry)
    kubeflow = open_registry("kubeflow+http://registry.kubeflow:8080/")
    assert isinstance(kubeflow, KubeflowRegistry)
    assert kubeflow.connection.address == "http://registry.kubeflow:8080"
    mlflow = open_registry("MLFLOW+https://mlflow.example/below", store)
    assert isinstance(mlflow, MlflowRegistry)
    assert mlflow.connection.address == "https://mlflow.example/below"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "of an unknown kind; use bucket or kubeflow"),
        ("wandb+https://host", "of an unknown kind"),
        ("kubeflow", "of an unknown kind"),
        ("kubeflow+ftp://host", "of an unknown kind"),
        ("https://host", "of an unknown kind"),
        ("kubeflow+http://", "of an unknown kind"),
        ("kubeflow+http:///path", "no usable address"),
        ("mlflow+http://host:port", "no usable address"),
        ("mlflow+http://host:99999", "no usable address"),
        ("bucket", "needs the store"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(uri: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        open_registry(uri)
    assert caught.value.exit_code == EXIT_BAD_INPUT


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow+https://ada:hunter2@mlflow:5000",
        "kubeflow+https://:hunter2@registry",
        "kubeflow+https://registry/?token=hunter2",
        "mlflow+https://mlflow#hunter2",
        "wandb+https://ada:hunter2@host",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(RegistryError, match="credentials in the environment") as caught:
        open_registry(uri)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("kind", "client"), [("kubeflow", "model_registry"), ("mlflow", "mlflow")])
def test_a_client_that_is_not_installed_is_named_with_its_extra(
    kind: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in list(sys.modules):
        if module.startswith((f"lrf_core.registry.{kind}", client)):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, client, None)
    with pytest.raises(RegistryError, match=rf"pip install 'lrf\[{kind}\]'") as caught:
        open_registry(f"{kind}+http://host")
    assert "\n" not in str(caught.value)


def test_clients_are_imported_only_for_the_registry_that_is_asked_for() -> None:
    program = (
        "import sys, logging\n"
        "from lrf_core.registry import open_registry\n"
        "clients = {'mlflow', 'model_registry', 'mr_openapi', 'aiohttp', 'requests'}\n"
        "assert not clients & set(sys.modules), clients & set(sys.modules)\n"
        "open_registry('kubeflow+http://host')\n"
        "assert 'mlflow' not in sys.modules\n"
        "assert 'nest_asyncio2' not in sys.modules\n"
        "assert not logging.getLogger().handlers\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
