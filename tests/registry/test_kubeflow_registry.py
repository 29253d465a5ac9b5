"""Kubeflow Model Registry: what people find there, and what stands in the way."""

from __future__ import annotations

import asyncio
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import urllib3
from answering import Answer, answering, html, json, status
from model_registry_server import TOKEN, ModelRegistryServer, running
from openapi_core import OpenAPI
from registry_case import RegistryCase, impatient, override_by
from werkzeug import Request, Response

from lrf_core.registry import Registry, RegistryError, UnreachableRegistryError, open_registry
from lrf_core.registry.kubeflow_client import Connection


def values(resource: dict[str, Any]) -> dict[str, Any]:
    """The custom properties without their types."""
    return {
        name: next(value for key, value in each.items() if key.endswith("_value"))
        for name, each in resource["customProperties"].items()
    }


def registered(server: ModelRegistryServer, kind: str) -> dict[str, Any]:
    (only,) = server.resources[kind].values()
    return only


def test_version_and_artifact_say_what_was_released(
    kubeflow_case: RegistryCase, model_registry: ModelRegistryServer
) -> None:
    release, number = kubeflow_case.publish(override=override_by("Ada"), signed_by="sha256:abc")
    kubeflow_case.open().register(release, number, run_id="run-1")

    assert registered(model_registry, "registered_models")["name"] == release.name
    version = registered(model_registry, "model_versions")
    assert version["name"] == release.version
    assert values(version) == {
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
        **release.summary.model_dump(),
    }
    artifact = registered(model_registry, "model_artifacts")
    assert artifact["uri"] == f"{release.location}/saved_model"
    assert (artifact["modelFormatName"], artifact["modelFormatVersion"]) == ("tensorflow", "2")
    source = [artifact[f"modelSource{part}"] for part in ("Kind", "Class", "Id")]
    assert source == ["kfp", "pipelinerun", "run-1"]


def test_without_a_run_and_override_nothing_is_said_about_them(
    kubeflow_case: RegistryCase, model_registry: ModelRegistryServer
) -> None:
    release, number = kubeflow_case.publish()
    kubeflow_case.open().register(release, number)

    said = values(registered(model_registry, "model_versions"))
    assert not {"lrf.run_id", "lrf.override_by", "lrf.signed_by"} & set(said)
    assert "modelSourceKind" not in registered(model_registry, "model_artifacts")


def test_the_run_is_known_from_the_environment(
    kubeflow_case: RegistryCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-of-pipelines")
    release, number = kubeflow_case.publish()
    assert kubeflow_case.open().register(release, number).run_id == "run-of-pipelines"


def test_what_others_changed_is_repaired_and_what_they_added_is_kept(
    kubeflow_case: RegistryCase, model_registry: ModelRegistryServer
) -> None:
    release, number = kubeflow_case.publish()
    registry = kubeflow_case.open()
    first = registry.register(release, number)
    added = {"reviewed": {"metadataType": "MetadataStringValue", "string_value": "yes"}}
    version = registered(model_registry, "model_versions")
    version["customProperties"].pop("lrf.verdict_digest")
    for kind in ("registered_models", "model_versions", "model_artifacts"):
        registered(model_registry, kind).setdefault("customProperties", {}).update(added)
    artifact = registered(model_registry, "model_artifacts")
    artifact.update(uri="s3://elsewhere", description="by hand")

    assert registry.register(release, number) == first
    registry.set_alias(release, number, "champion")
    registry.set_alias(release, number, "latest")
    assert values(version)["lrf.verdict_digest"] == release.verdict_digest
    assert artifact["uri"] == f"{release.location}/saved_model"
    assert artifact["description"] == "by hand"
    for kind in ("registered_models", "model_versions", "model_artifacts"):
        assert values(registered(model_registry, kind))["reviewed"] == "yes"
    assert registry.find(release.name, release.version).aliases == ("champion", "latest")


def test_registering_again_only_reads(
    kubeflow_case: RegistryCase, model_registry: ModelRegistryServer
) -> None:
    release, number = kubeflow_case.publish()
    registry = kubeflow_case.open()
    registry.register(release, number, run_id="run-1")
    model_registry.requests.clear()
    registry.register(release, number, run_id="run-2")
    assert len(model_registry.requests) == 4
    assert all(asked.startswith("GET ") for asked in model_registry.requests)


def test_half_a_registration_is_not_found(
    kubeflow_case: RegistryCase, model_registry: ModelRegistryServer
) -> None:
    release, number = kubeflow_case.publish()
    registry = kubeflow_case.open()
    registry.register(release, number)
    model_registry.resources["model_artifacts"].clear()
    assert registry.find(release.name, release.version) is None
    registry.register(release, number)
    assert registry.find(release.name, release.version)


def test_the_server_of_these_tests_refuses_what_the_schema_forbids(
    model_registry_schema: OpenAPI,
) -> None:
    """Whole numbers have nine digits at most there, which is why metrics are doubles."""
    server = ModelRegistryServer(model_registry_schema, newest=True)
    macs = {"metadataType": "MetadataIntValue", "int_value": "16000000000"}
    with running(server):
        answer = urllib3.request(
            "POST",
            f"{server.address}/api/model_registry/v1/registered_models",
            json={"name": "tiny", "customProperties": {"macs": macs}},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
    assert answer.status == 400
    assert len(server.broken) == 1
    assert not server.resources["registered_models"]


def test_the_newest_version_of_the_api_is_used(
    kubeflow_case: RegistryCase,
    model_registry: ModelRegistryServer,
    old_kubeflow_case: RegistryCase,
    old_model_registry: ModelRegistryServer,
) -> None:
    for case in (kubeflow_case, old_kubeflow_case):
        case.open().register(*case.publish())

    assert all("/api/model_registry/v1/" in asked for asked in model_registry.requests)
    first, *others = old_model_registry.requests
    assert first.endswith("/api/model_registry/v1/registered_models")
    assert all("/api/model_registry/v1alpha3/" in asked for asked in others)


def test_it_works_inside_a_running_loop_and_in_threads(kubeflow_case: RegistryCase) -> None:
    release, number = kubeflow_case.publish()
    registry = kubeflow_case.open()

    async def inside() -> Any:
        return registry.register(release, number)

    with ThreadPoolExecutor(1) as thread:
        in_thread = thread.submit(registry.register, release, number).result()
    assert asyncio.run(inside()) == in_thread == registry.register(release, number)


def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    model_registry: ModelRegistryServer, kubeflow_case: RegistryCase
) -> None:
    release, number = kubeflow_case.publish()
    refusals = [503, 500]

    def busy(request: Request) -> Response:
        if refusals:
            return Response("busy", refusals.pop())
        return Response.from_app(model_registry, request.environ)

    with answering(busy) as address:
        assert open_registry(f"kubeflow+{address}").register(release, number)
    assert not refusals


def registry_at(address: str) -> Registry:
    return impatient(open_registry(f"kubeflow+{address}"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (html, "does not answer as a Kubeflow Model Registry does .* login page"),
        (status(404, "404 page not found"), "has no Kubeflow Model Registry API"),
        (status(401, "no"), r"refuses the token \(401\); set KUBEFLOW_REGISTRY_TOKEN"),
        (status(403, "RBAC: access denied"), r"refuses the token \(403\)"),
        (status(503, "upstream\nconnect error"), "answered 503: upstream connect error"),
        (json('{"items": 7}'), "does not answer as"),
        (json('{"items"'), "does not answer as"),
    ],
    ids=["login page", "nothing there", "401", "403", "503", "another API", "truncated"],
)
def test_what_else_may_answer_is_one_clear_line(
    answer: Answer, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", TOKEN)
    with answering(answer) as address, pytest.raises(RegistryError, match=message) as caught:
        registry_at(address).check()
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_token_that_the_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", TOKEN)

    def repeating(request: Request) -> Response:
        return Response(f"bad header: {request.headers['Authorization']}", 400)

    with (
        answering(repeating) as address,
        pytest.raises(RegistryError, match=r"bad header: Bearer \*\*\*") as caught,
    ):
        registry_at(address).check()
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("setting", ["KUBEFLOW_REGISTRY_TOKEN_FILE", "KF_PIPELINES_SA_TOKEN_PATH"])
def test_a_mounted_token_is_read_anew_for_each_registry(
    setting: str,
    model_registry: ModelRegistryServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBEFLOW_REGISTRY_TOKEN")
    with pytest.raises(RegistryError, match=r"wants a token .* name its file in KUBEFLOW_REG"):
        registry_at(model_registry.address).check()
    mounted = tmp_path / "token"
    monkeypatch.setenv(setting, str(mounted))
    with pytest.raises(RegistryError, match=f"cannot read the token in {mounted}"):
        registry_at(model_registry.address)
    mounted.write_text(" \n")
    with pytest.raises(RegistryError, match="holds no token"):
        registry_at(model_registry.address)
    mounted.write_text(f"{TOKEN}\n")
    registry_at(model_registry.address).check()


def test_a_pods_own_token_is_sent_over_tls_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lrf_core.registry.kubeflow_client._SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    assert Connection.from_environment("http://registry").token is None
    connection = Connection.from_environment("https://registry")
    assert connection.token == TOKEN
    assert TOKEN not in repr(connection)


def test_tls_with_a_ca_of_ones_own(
    model_registry_schema: OpenAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", TOKEN)
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = ModelRegistryServer(model_registry_schema, newest=True)
    with running(server, tls):
        with pytest.raises(RegistryError, match=r"is not trusted .* KUBEFLOW_REGISTRY_CA"):
            registry_at(server.address).check()
        monkeypatch.setenv("KUBEFLOW_REGISTRY_CA", str(tmp_path / "ca.pem"))
        with pytest.raises(RegistryError, match=r"ca\.pem, which is no file"):
            registry_at(server.address)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        registry_at(server.address).check()
    assert server.broken == []


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    short = aiohttp.ClientTimeout(total=0.2)
    monkeypatch.setattr("lrf_core.registry.kubeflow_client._TIMEOUT", short)
    done = threading.Event()

    def waiting(request: Request) -> Response:
        done.wait(10)
        return Response("late")

    with answering(waiting) as address:
        with pytest.raises(UnreachableRegistryError, match="no answer in time"):
            registry_at(address).check()
        done.set()


def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", f"{TOKEN}\nX-Other: 1")
    with pytest.raises(RegistryError, match="holds no token that can be sent") as caught:
        registry_at("http://registry")
    assert TOKEN not in str(caught.value)
