"""A release gets out of service again where anything fails, or where somebody says so."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
from kserve_api import NAME
from promotions import World, restored, shares_of_new

from lrf_core.errors import PromotionError
from lrf_core.serving.plan import ROLLBACK
from lrf_core.stages.promote import NotPromotedError, roll_back

# The function has the module's name in its package.
STAGE = importlib.import_module("lrf_core.stages.promote")


@pytest.mark.parametrize("deployment", ["serverless", "raw"])
def test_wrong_answers_are_rolled_back_before_they_get_traffic(
    deployment: str, request: pytest.FixtureRequest
) -> None:
    world = request.getfixturevalue("world" if deployment == "serverless" else "raw")
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.wrong()
    with pytest.raises(NotPromotedError, match=r"apart from the release's own.*is restored") as e:
        world.promote()
    assert e.value.promotion.outcome == "rolled_back"
    assert restored(world, before)
    assert "champion" not in world.aliases()
    if deployment == "serverless":
        assert shares_of_new(world) == [0]


def test_a_rollback_from_full_traffic_never_serves_the_failed_release_again(
    world: World,
) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    asked = 0

    def wrong_at_the_end(host: str) -> Any:
        nonlocal asked
        asked += 1
        if host == f"{NAME}.team.example.com":
            world.wrong()
        return world.model_at(host)

    world.ingress.model_at = wrong_at_the_end
    with pytest.raises(NotPromotedError, match="is restored"):
        world.promote()
    assert restored(world, before)
    assert shares_of_new(world) == [0, 10, 50, 100, 0]


@pytest.mark.parametrize("deployment", ["serverless", "raw"])
def test_a_model_that_does_not_load_is_seen_at_once(
    deployment: str, request: pytest.FixtureRequest
) -> None:
    world = request.getfixturevalue("world" if deployment == "serverless" else "raw")
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.cluster.loads = lambda uri: "fail" if uri == world.uri("new") else "ok"
    with pytest.raises(NotPromotedError, match=r"cannot be loaded.*NoSuchBucket") as error:
        world.promote(wait=60.0)
    assert restored(world, before)
    assert sum(step.seconds for step in error.value.promotion.steps) < 30


def test_a_failure_from_before_does_not_count(world: World) -> None:
    """A service that is broken is repaired by promoting a sound release."""
    broken = "s3://models/gone/saved_model"
    world.cluster.loads = lambda uri: "fail" if uri == broken else "ok"

    def edit(service: dict[str, Any]) -> None:
        service["spec"]["predictor"]["model"]["storageUri"] = broken

    world.cluster.edit(edit)
    for _ in range(6):
        world.cluster._reconcile()
    assert world.cluster.service["status"]["modelStatus"]["transitionStatus"] != "UpToDate"
    assert world.promote().outcome == "promoted"


@pytest.mark.parametrize("deployment", ["serverless", "raw"])
def test_what_is_not_ready_in_time_is_rolled_back(
    deployment: str, request: pytest.FixtureRequest
) -> None:
    world = request.getfixturevalue("world" if deployment == "serverless" else "raw")
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.cluster.loads = lambda uri: "never" if uri == world.uri("new") else "ok"
    with pytest.raises(NotPromotedError, match=r"not ready within 0.3 s.*Deploying"):
        world.promote(wait=0.3)
    assert restored(world, before)


def test_a_server_that_does_not_answer_is_rolled_back(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.ingress.refuse = [503] * 1000
    with pytest.raises(NotPromotedError, match=r"answers with HTTP 503: .*not now"):
        world.promote()
    assert restored(world, before)


def test_a_route_that_is_late_is_waited_for(world: World) -> None:
    world.ingress.refuse = [503, 404]
    assert world.promote(settle=5.0).outcome == "promoted"


def test_without_an_address_of_the_new_revision_nothing_gets_traffic(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.cluster.tags = False
    with pytest.raises(NotPromotedError, match="no address of its own"):
        world.promote()
    assert restored(world, before)


def test_an_unexpected_error_is_rolled_back_too(world: World, monkeypatch) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lrf_core.serving.rollout.compare", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        world.promote()
    assert restored(world, before)


def test_what_cannot_be_rolled_back_is_said_with_what_to_run(world: World) -> None:
    def denied(verb: str, number: int) -> None:
        if world.cluster.shares().get(world.uri("new")) == 10:
            world.cluster.denied = {"patch"}

    world.cluster.on_request = denied
    expected = r"not allow to patch.*did not end.*lrf promote --rollback --service team/digits"
    with pytest.raises(NotPromotedError, match=expected) as error:
        world.promote()
    assert error.value.promotion.outcome == "left"
    assert [step.name for step in error.value.promotion.steps if not step.passed] == [
        "move to 50%",
        "take off traffic",
    ]


def test_the_last_promotion_can_be_undone(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.promote()
    done = roll_back(world.settings())
    assert done.outcome == "rolled_back"
    assert restored(world, before)
    with pytest.raises(PromotionError, match="records no promotion"):
        roll_back(world.settings())


def test_records_of_promotions_do_not_pile_up(world: World) -> None:
    for ref in ("1", "2", "1", "2"):
        world.promote(ref, canary=[100])
    record = world.cluster.service["metadata"]["annotations"][ROLLBACK]
    assert len(record) < 1000


def test_a_service_that_fails_while_it_is_watched_is_rolled_back(world: World) -> None:
    before = copy.deepcopy(world.cluster.spec_of_user())

    def failing(verb: str, number: int) -> None:
        if world.cluster.shares().get(world.uri("new")) == 10:
            world.cluster.revisions[-1].ready = False
            world.cluster.loads = lambda uri: "fail" if uri == world.uri("new") else "ok"

    def answered(host: str) -> Any:
        if world.cluster.shares().get(world.uri("new")) == 10:
            world.cluster.on_request = failing
        return world.model_at(host)

    world.ingress.model_at = answered
    with pytest.raises(NotPromotedError, match=r"not ready any more: .*RevisionFailed"):
        world.promote(soak=5.0)
    assert restored(world, before)
