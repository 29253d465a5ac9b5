"""MLflow: what people find there, and what stands in the way."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme
from answering import Answer, answering, html, json, status
from registry_case import REPORTS, RegistryCase, override_by
from seaweed import Seaweed

from lrf_core.artifacts import Release
from lrf_core.registry import RegistryError, open_registry
from lrf_core.registry.mlflow_client import MlflowClient

_SECRET = "secret-that-nobody-may-see"


@pytest.fixture
def client(mlflow_address: str) -> MlflowClient:
    return MlflowClient(mlflow_address, mlflow_address)


def version_of(client: MlflowClient, release: Release) -> Any:
    (version,) = client.search_model_versions(f"name = '{release.name}'")
    return version


@pytest.mark.slow
def test_version_and_run_say_what_was_released(
    mlflow_case: RegistryCase, client: MlflowClient, s3_settings: Seaweed
) -> None:
    release, number = mlflow_case.publish(override=override_by("Ada"), signed_by="sha256:abc")
    mlflow_case.open().register(release, number, run_id="run-1")

    version = version_of(client, release)
    assert version.source == release.location
    assert version.tags == {
        "lrf.version": release.version,
        "lrf.number": "1",
        "lrf.location": release.location,
        "lrf.model_digest": release.model_digest,
        "lrf.verdict_digest": release.verdict_digest,
        "lrf.baseline_digest": release.lineage.parent,
        "lrf.published": release.lineage.created,
        "lrf.override_by": "Ada",
        "lrf.signed_by": "sha256:abc",
        "lrf.run_id": "run-1",
    }
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == release.summary.model_dump()
    found = client.list_artifacts(version.run_id)
    assert {each.path for each in found} == {*REPORTS, "manifest.json"}
    keys = [
        each.object_name
        for each in s3_settings.client().list_objects("releases", "mlflow/", recursive=True)
    ]
    assert any(key.endswith(f"{version.run_id}/artifacts/report.html") for key in keys)


@pytest.mark.slow
def test_mlflow_downloads_the_release_itself_by_its_alias(
    mlflow_case: RegistryCase,
    mlflow_address: str,
    s3_settings: Seaweed,
    tmp_path: Path,
) -> None:
    release, number = mlflow_case.publish()
    registry = mlflow_case.open()
    registry.register(release, number)
    registry.set_alias(release, number, "champion")
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_S3_ENDPOINT_URL": s3_settings.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder = tmp_path / "model"
    command = [sys.executable, "-m", "mlflow", "artifacts", "download", f"--dst-path={folder}"]
    subprocess.run(
        [*command, f"--artifact-uri=models:/{release.name}@champion"], env=environment, check=True
    )
    for name in REPORTS:
        assert (folder / name).read_text() == f"{name} of {release.version}"


@pytest.mark.slow
def test_what_others_changed_is_repaired_and_what_they_added_is_kept(
    mlflow_case: RegistryCase, client: MlflowClient
) -> None:
    release, number = mlflow_case.publish()
    registry = mlflow_case.open()
    first = registry.register(release, number)
    client.delete_model_version_tag(release.name, first.id, "lrf.verdict_digest")
    client.set_model_version_tag(release.name, first.id, "reviewed", "yes")
    client.delete_run(version_of(client, release).run_id)

    assert registry.register(release, number) == first
    tags = version_of(client, release).tags
    assert tags["lrf.verdict_digest"] == release.verdict_digest
    assert tags["reviewed"] == "yes"


@pytest.mark.slow
def test_registering_again_writes_nothing(mlflow_case: RegistryCase, client: MlflowClient) -> None:
    release, number = mlflow_case.publish()
    registry = mlflow_case.open()
    registry.register(release, number, run_id="run-1")

    def state() -> list[Any]:
        version = version_of(client, release)
        run = client.get_run(version.run_id)
        return [dict(version), dict(client.get_registered_model(release.name)), run.to_dictionary()]

    before = state()
    registry.register(release, number, run_id="run-2")
    assert str(state()) == str(before)


@pytest.mark.slow
def test_a_second_version_that_a_killed_registration_left_is_removed(
    mlflow_case: RegistryCase, client: MlflowClient
) -> None:
    release, number = mlflow_case.publish()
    registry = mlflow_case.open()
    first = registry.register(release, number)
    registry.set_alias(release, number, "champion")
    tags = version_of(client, release).tags
    client.create_model_version(release.name, release.location, tags=tags)

    found = registry.find(release.name, release.version)
    assert (found.id, found.aliases) == (first.id, ("champion",))
    assert registry.register(release, number) == found
    assert mlflow_case.versions(release) == 1


@pytest.mark.slow
def test_the_experiment_is_the_one_that_mlflows_variables_name(
    mlflow_case: RegistryCase, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def experiment_of(release: Release) -> str:
        run = client.get_run(version_of(client, release).run_id)
        return client.get_experiment(run.info.experiment_id).name

    release, number = mlflow_case.publish()
    mlflow_case.open().register(release, number)
    assert experiment_of(release) == "lrf"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "compression")
    release, number = mlflow_case.publish()
    mlflow_case.open().register(release, number)
    assert experiment_of(release) == "compression"


def test_a_release_in_a_local_directory_is_refused(bucket_case: RegistryCase) -> None:
    release, number = bucket_case.publish()
    with pytest.raises(RegistryError, match=r"no local directories; publish to s3://"):
        open_registry("mlflow+http://127.0.0.1:9").register(release, number)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (html, "does not answer as an MLflow server does; .* login page"),
        (status(404, "<html>not found</html>"), "does not answer as an MLflow server does"),
        (status(401, "no"), "refuses the credentials; set MLFLOW_TRACKING_TOKEN"),
        (status(403, "RBAC: access denied"), "refuses the credentials"),
        (status(500, "out of\ndisk"), r"cannot reach .* \(too many 500 error responses\)"),
        (json('{"registered_models": 7}'), "does not answer as an MLflow server does"),
    ],
    ids=["login page", "nothing there", "401", "403", "500", "another API"],
)
def test_what_else_may_answer_is_one_clear_line(
    answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", _SECRET)
    with answering(answer) as address, pytest.raises(RegistryError, match=message) as caught:
        open_registry(f"mlflow+{address}").check()
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _SECRET not in str(caught.value)


def test_a_certificate_that_is_not_trusted_is_said_with_the_variable_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with (
        answering(html, tls) as address,
        pytest.raises(RegistryError, match=r"is not trusted; .* MLFLOW_TRACKING_SERVER_CERT_PATH"),
    ):
        open_registry(f"mlflow+{address}").check()


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    done = threading.Event()

    def waiting(request: Any) -> Any:
        done.wait(10)
        return status(200)(request)

    with answering(waiting) as address:
        with pytest.raises(RegistryError, match=r"cannot reach .* timed out"):
            open_registry(f"mlflow+{address}").check()
        done.set()
