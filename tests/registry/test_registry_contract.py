"""What every model registry keeps: one version per release, whatever happens on the way."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_case import RegistryCase, impatient, override_by

from lrf_core.errors import EXIT_FAILURE
from lrf_core.registry import RegistryError, UnreachableRegistryError, open_registry

_SECRET = "secret-that-nobody-may-see"

# The server of MLflow takes long to start.
_SERVED = ["kubeflow", "old_kubeflow", pytest.param("mlflow", marks=pytest.mark.slow)]


@pytest.fixture(params=["bucket", *_SERVED])
def case(request: pytest.FixtureRequest) -> RegistryCase:
    return request.getfixturevalue(f"{request.param}_case")


@pytest.fixture(params=_SERVED)
def served(request: pytest.FixtureRequest) -> RegistryCase:
    """The registries that have a server."""
    return request.getfixturevalue(f"{request.param}_case")


def test_a_release_is_found_as_it_was_registered(case: RegistryCase) -> None:
    registry = case.open()
    registry.check()
    release, number = case.publish(override=override_by("Ada"), signed_by="sha256:abc")
    assert case.kind == "bucket" or registry.find(release.name, release.version) is None
    registration = registry.register(release, number, run_id="run-1")

    assert registration == registry.find(release.name, release.version)
    assert (registration.registry, registration.name) == (case.kind, release.name)
    assert (registration.version, registration.number) == (release.version, 1)
    assert registration.location == release.location
    assert registration.run_id == (None if case.kind == "bucket" else "run-1")
    assert registry.find(release.name, "v-000000000000") is None
    assert registry.find("no-such-model", release.version) is None


def test_registering_again_changes_nothing(case: RegistryCase) -> None:
    registry = case.open()
    release, number = case.publish()
    first = registry.register(release, number, run_id="run-1")

    assert case.open().register(release, number, run_id="run-2") == first
    assert registry.register(release, number) == first
    assert case.versions(release) == 1


def test_two_releases_are_two_versions_and_aliases_move_between_them(case: RegistryCase) -> None:
    registry = case.open()
    first, one = case.publish()
    second, two = case.publish(first.name)
    assert registry.register(first, one).id != registry.register(second, two).id

    def champion_and_previous() -> tuple[list[str], list[str]]:
        found = [registry.find(each.name, each.version) for each in (first, second)]
        return tuple([a for a in each.aliases if a != "latest"] for each in found if each)

    registry.set_alias(first, one, "champion")
    registry.set_alias(first, one, "champion")
    assert champion_and_previous() == (["champion"], [])
    registry.set_alias(second, two, "champion")
    registry.set_alias(first, one, "previous")
    registry.set_alias(second, two, "latest")
    assert champion_and_previous() == (["previous"], ["champion"])
    assert "latest" in registry.find(second.name, second.version).aliases
    assert "latest" not in registry.find(first.name, first.version).aliases
    registry.register(first, one)
    assert champion_and_previous() == (["previous"], ["champion"])


def test_an_alias_for_what_is_not_registered_is_refused(case: RegistryCase) -> None:
    release, number = case.publish()
    unknown = release.model_copy(update={"version": "v-000000000000"})
    for each in (unknown, release.model_copy(update={"name": "no-such-model"})):
        with pytest.raises(RegistryError, match=r"does not have .* publish it again"):
            case.open().set_alias(each, number, "champion")


def test_another_model_under_the_same_version_is_refused(case: RegistryCase) -> None:
    release, number = case.publish()
    registry = case.open()
    registry.register(release, number)
    foreign = release.model_copy(update={"model_digest": "f" * 64})
    with pytest.raises(RegistryError, match=r"has .* with model .*the release has ffffffffffff"):
        registry.register(foreign, number)

    assert registry.find(release.name, release.version).location == release.location
    assert case.versions(release) == 1


@pytest.mark.parametrize("lost_answer", [False, True], ids=["lost request", "lost answer"])
def test_cut_off_at_any_request_it_is_completed_by_running_it_again(
    served: RegistryCase, lost_answer: bool
) -> None:
    release, number = served.publish()
    served.proxy.heal()
    served.open().register(release, number)
    requests = served.proxy.seen
    assert requests > 5
    for k in range(1, requests + 1):
        release, number = served.publish()
        served.proxy.cut_at(k, lost_answer=lost_answer)
        with pytest.raises(UnreachableRegistryError):
            served.open().register(release, number, run_id="run-1")
        served.proxy.heal()
        half = served.open().find(release.name, release.version)
        whole = served.open().register(release, number, run_id="run-1")

        assert half in (None, whole)
        assert whole == served.open().find(release.name, release.version)
        assert whole.run_id == "run-1"
        assert served.versions(release) == 1


def test_registrations_at_once_end_with_one_version(served: RegistryCase) -> None:
    release, number = served.publish()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(served.open().register, release, number) for _ in range(4)]
        found = {job.result() for job in jobs}

    assert len(found) == 1
    assert found == {served.open().find(release.name, release.version)}
    assert served.versions(release) == 1


@pytest.mark.parametrize("kind", ["kubeflow", "mlflow"])
def test_a_server_that_is_not_there_is_one_clear_line(
    kind: str, bucket_case: RegistryCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_REGISTRY_TOKEN", _SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", _SECRET)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    release, number = bucket_case.publish()
    release = release.model_copy(update={"location": "s3://releases/tiny"})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        registry = impatient(open_registry(f"{kind}+{address}"))
        calls = (
            registry.check,
            lambda: registry.register(release, number),
            lambda: registry.find(release.name, release.version),
            lambda: registry.set_alias(release, number, "champion"),
        )
        for call in calls:
            with pytest.raises(UnreachableRegistryError, match="cannot reach") as caught:
                call()
            message = str(caught.value)
            assert address in message
            assert "\n" not in message
            assert _SECRET not in message + repr(registry)
            assert caught.value.exit_code == EXIT_FAILURE
            assert caught.value.__cause__ is None
