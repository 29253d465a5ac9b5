"""Promotion beside others who use the same Kubernetes API, and with an API that fails."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import kubernetes.client
import pytest
from kserve_api import SERVICE
from promotions import World, shares_of_new

from lrf_core.errors import ClusterError, PromotionError, UnreachableClusterError
from lrf_core.serving.plan import DIGEST, RELEASE, ROLLBACK, TAG_ROUTING
from lrf_core.serving.service import InferenceService
from lrf_core.stages.promote import NotPromotedError, preview

# The function has the module's name in its package.
STAGE = importlib.import_module("lrf_core.stages.promote")


def test_a_service_that_is_not_there_is_named(world: World) -> None:
    world.cluster.service = None
    with pytest.raises(ClusterError, match=f"no InferenceService {SERVICE}.*create it first"):
        world.promote()


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_a_refusal_names_the_verb_and_the_resource(world: World, verb: str) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.cluster.denied = {verb}
    expected = rf"does not allow to {verb} inferenceservices\.serving\.kserve\.io.*grant the Role"
    with pytest.raises(ClusterError, match=expected):
        world.promote()
    assert world.cluster.spec_of_user() == before


def test_a_patch_that_is_refused_undoes_no_earlier_promotion(world: World) -> None:
    world.promote("1")
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.cluster.answers = [0, 0, 403]  # read, dry run, and the patch itself
    with pytest.raises(NotPromotedError, match=r"not allow to patch.*serves what it did before"):
        world.promote("2")
    assert world.cluster.spec_of_user() == before


def test_an_api_that_is_late_is_asked_again(world: World, monkeypatch) -> None:
    monkeypatch.setattr("lrf_core.serving.service.tenacity.nap.time.sleep", lambda s: None)
    world.cluster.answers = [503, 0, 500, 429, 0, 503]
    assert world.promote(canary=[100]).outcome == "promoted"


def test_a_lost_answer_to_a_patch_is_no_change_by_someone_else(world: World, monkeypatch) -> None:
    monkeypatch.setattr("lrf_core.serving.service.tenacity.nap.time.sleep", lambda s: None)
    obeyed = world.cluster._store
    lost = []

    def stored_and_lost(wanted: dict[str, Any]) -> None:
        obeyed(wanted)
        if not lost:
            lost.append(True)
            raise ConnectionResetError

    world.cluster._store = stored_and_lost
    assert world.promote().outcome == "promoted"
    assert lost


def test_a_change_of_the_status_meanwhile_is_no_conflict(world: World) -> None:
    def touched(verb: str, number: int) -> None:
        if verb == "patch":
            world.cluster.service["metadata"]["resourceVersion"] = f"9{number}"

    world.cluster.on_request = touched
    with pytest.raises(PromotionError, match="changed by someone else"):
        # Each attempt meets another version: that is given up, but not as an endless loop.
        world.promote()
    before = [True, True]

    def touched_twice(verb: str, number: int) -> None:
        if verb == "patch" and before:
            before.pop()
            world.cluster.service["metadata"]["resourceVersion"] = f"8{number}"

    world.cluster.on_request = touched_twice
    assert world.promote().outcome == "promoted"


def test_a_change_by_someone_else_is_not_overwritten(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        service["spec"]["predictor"]["model"]["storageUri"] = world.uri("old")
        service["spec"]["predictor"]["minReplicas"] = 3

    def meanwhile(verb: str, number: int) -> None:
        if shares_of_new(world)[-1:] == [10] and not edited:
            edited.append(True)
            world.cluster.edit(edit)

    edited: list[bool] = []
    world.cluster.on_request = meanwhile
    with pytest.raises(NotPromotedError, match="changed by someone else") as error:
        world.promote()
    assert error.value.promotion.outcome == "left"
    spec = world.cluster.service["spec"]["predictor"]
    assert (spec["minReplicas"], spec["canaryTrafficPercent"]) == (3, 10)


def test_a_canary_of_someone_else_is_not_touched(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        service["spec"]["predictor"]["canaryTrafficPercent"] = 20

    world.cluster.edit(edit)
    with pytest.raises(PromotionError, match="at 20% of a canary rollout by someone else"):
        world.promote()


def test_a_dry_run_writes_nothing(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    found = preview(world.store.as_uri(), "digits", "latest", world.settings())
    assert world.cluster.spec_of_user() == before
    assert found.steps == (10, 50, 100)
    predictor = found.patch["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 0
    assert predictor["model"]["storageUri"] == world.uri("new")
    assert set(found.patch["metadata"]["annotations"]) == {RELEASE, DIGEST, ROLLBACK, TAG_ROUTING}


def test_a_dry_run_finds_what_the_api_would_refuse(world: World) -> None:
    world.cluster.denied = {"patch"}
    with pytest.raises(ClusterError, match="does not allow to patch"):
        preview(world.store.as_uri(), "digits", "latest", world.settings())


def test_an_api_that_does_not_answer_is_no_bad_input() -> None:
    configuration = kubernetes.client.Configuration(host="http://127.0.0.1:9")
    configuration.retries = False
    with kubernetes.client.ApiClient(configuration) as client:
        service = InferenceService(client, SERVICE, retry_s=0.01)
        with pytest.raises(UnreachableClusterError, match="does not answer") as caught:
            service.get()
    assert caught.value.exit_code == 1
