"""A release gets into service step by step, and out of it again where anything fails."""

from __future__ import annotations

import copy
import importlib
import json
import logging
from pathlib import Path
from typing import Any

import local_releases
import pytest
from kserve_api import NAME, NAMESPACE, SERVICE
from promotions import World

from lrf_core.errors import ClusterError, PromotionError, PublishRefusedError
from lrf_core.export.saved_model import SavedModel
from lrf_core.serving.plan import DIGEST, RELEASE, ROLLBACK, TAG_ROUTING
from lrf_core.stages.promote import NotPromotedError, preview, roll_back

# The function has the module's name in its package.
STAGE = importlib.import_module("lrf_core.stages.promote")


def shares_of_new(world: World) -> list[int]:
    """Percent of the traffic that the new release got, each time it changed."""
    found: list[int] = []
    for shares in world.cluster.history:
        share = shares.get(world.uri("new"), 0)
        if not found or found[-1] != share:
            found.append(share)
    return found


def restored(world: World, before: dict[str, Any]) -> bool:
    return world.cluster.spec_of_user() == before and shares_of_new(world)[-1] == 0


def test_traffic_moves_in_steps_after_the_answers_were_checked(world: World) -> None:
    done = world.promote()
    assert done.outcome == "promoted"
    assert shares_of_new(world) == [0, 10, 50, 100]
    # Asked at its own address before and at each share, and in the end at the service's.
    hosts = [host for host, _ in world.ingress.requests]
    own, plain = f"latest-{NAME}-predictor.{NAMESPACE}.example.com", f"{NAME}.team.example.com"
    assert hosts == [own, own, own, plain]
    spec = world.cluster.service["spec"]["predictor"]
    assert spec["model"]["storageUri"] == world.uri("new")
    assert "canaryTrafficPercent" not in spec
    annotations = world.cluster.service["metadata"]["annotations"]
    version = world.made.versions["new"]
    assert annotations[RELEASE] == f"digits/{version}"
    assert annotations["team"] == "vision"
    assert world.aliases()["champion"] == 2
    assert [step.name for step in done.steps if not step.passed] == []


def test_moving_the_traffic_makes_no_new_revision(world: World) -> None:
    world.promote()
    assert len(world.cluster.revisions) == 2


def test_the_replaced_champion_is_the_previous_one(world: World) -> None:
    world.promote("1")
    world.promote("2")
    assert {"champion": 2, "previous": 1}.items() <= world.aliases().items()


def test_what_is_served_already_is_left_alone(world: World, caplog) -> None:
    world.promote()
    patches = world.cluster.requests.count(("patch", "inferenceservices"))
    with caplog.at_level(logging.INFO, logger="lrf"):
        again = world.promote()
    assert again.outcome == "already_served"
    assert "already; nothing to do" in caplog.text
    assert world.cluster.requests.count(("patch", "inferenceservices")) == patches


def test_protocol_v1_is_spoken_where_the_service_does(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        service["spec"]["predictor"]["model"]["protocolVersion"] = "v1"

    world.cluster.edit(edit)
    assert world.promote(canary=[100]).outcome == "promoted"
    assert {path for _, path in world.ingress.requests} == {f"/v1/models/{NAME}:predict"}


def test_a_service_of_another_format_becomes_one_of_tensorflow(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        service["spec"]["predictor"]["model"] = {
            "modelFormat": {"name": "sklearn", "version": "1"},
            "runtime": "kserve-sklearnserver",
            "storageUri": world.uri("old"),
            "protocolVersion": "v2",
            "name": "",
            "resources": {},
        }

    world.cluster.edit(edit)
    before = copy.deepcopy(world.cluster.spec_of_user())
    world.promote(canary=[100])
    model = world.cluster.service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"}
    assert model["runtime"] == "kserve-tensorflow-serving"
    roll_back(world.settings())
    assert world.cluster.spec_of_user() == before


def test_behind_a_transformer_the_model_itself_is_asked(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        service["spec"]["transformer"] = {"containers": [{"name": "resize", "image": "resize:1"}]}

    world.cluster.edit(edit)
    world.promote(canary=[100])
    assert world.ingress.requests[-1][0] == f"{NAME}-predictor.team.example.com"


def test_credentials_of_the_storage_are_kept(world: World) -> None:
    def edit(service: dict[str, Any]) -> None:
        model = service["spec"]["predictor"]["model"]
        del model["storageUri"]
        model["storage"] = {"key": "models-s3", "path": "old/saved_model"}

    world.cluster.edit(edit)
    found = preview(world.store.as_uri(), "digits", "latest", world.settings())
    assert found.service["spec"]["predictor"]["model"]["storage"] == {"key": "models-s3"}
    undone = json.loads(found.patch["metadata"]["annotations"][ROLLBACK])
    model = undone["spec"]["predictor"]["model"]
    assert model["storage"] == {"path": "old/saved_model"}
    assert model["storageUri"] is None


def test_a_raw_deployment_is_promoted_in_one_step(raw: World) -> None:
    done = raw.promote()
    assert (done.outcome, done.mode) == ("promoted", "raw")
    assert [step.name for step in done.steps][:3] == ["patch", "ready at 100%", "answers at 100%"]
    assert TAG_ROUTING not in raw.cluster.service["metadata"]["annotations"]


def test_canary_steps_of_a_raw_deployment_are_refused(raw: World) -> None:
    with pytest.raises(PromotionError, match=r"ignores canaryTrafficPercent.*--canary 100"):
        raw.promote(canary=[10, 100])
    assert ("patch", "inferenceservices") not in raw.cluster.requests


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


def test_releases_in_s3_are_served_from_there(world: World, s3_settings: Any) -> None:
    from lrf_core.stages.promote import promote
    from lrf_core.storage import open_store

    uri = f"s3://{s3_settings.bucket}/promotion"
    local, remote = open_store(world.store.as_uri()), open_store(uri)
    for key in local.list():
        remote.put(key, local.get(key))
    promote(uri, "digits", "latest", world.settings(canary=[100]))
    served = world.cluster.service["spec"]["predictor"]["model"]["storageUri"]
    assert served == f"{uri}/digits/{world.made.versions['new']}/saved_model"


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


def test_aliases_of_registries_are_moved_as_well(world: World, monkeypatch) -> None:
    moved = []

    class Recorder:
        def set_alias(self, release: Any, number: int, alias: str) -> None:
            moved.append((release.version, number, alias))

        def find(self, name: str, version: str) -> Any:
            return (name, version)

    monkeypatch.setattr(STAGE, "open_registry", lambda uri, store: Recorder())
    old, new = world.made.versions["old"], world.made.versions["new"]
    world.promote("1", registries=["bucket"])
    assert moved == [(old, 1, "champion")]
    world.promote("2", registries=["bucket"])
    assert moved[1:] == [(new, 2, "champion"), (old, 1, "previous")]


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


def test_what_publish_writes_is_promoted_when_it_is_signed(world: World, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from lrf_core.spec import PublishSpec
    from lrf_core.stages.publish import publish

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    model = local_releases.small_model(5)
    release = publish(
        model,
        local_releases.verdict_on(model),
        world.store.as_uri(),
        name="digits",
        attachments={},
        settings=PublishSpec(signing_key=str(private)),
    )
    served = SavedModel(world.store / "digits" / release.version / "saved_model" / "1").run
    world.instead[release.version] = served
    with pytest.raises(PublishRefusedError, match="not signed"):
        world.promote("2", public_key=str(public))
    assert world.promote(public_key=str(public)).outcome == "promoted"


def test_a_champion_that_cannot_be_named_is_said_and_made_up_for(world: World, monkeypatch) -> None:
    from lrf_core.errors import StorageError

    set_alias = STAGE.set_alias

    def unwritable(*_: Any) -> None:
        raise StorageError("cannot write the index")

    monkeypatch.setattr(STAGE, "set_alias", unwritable)
    with pytest.raises(NotPromotedError, match="is served, but is not named champion") as error:
        world.promote()
    assert error.value.promotion.outcome == "promoted"
    monkeypatch.setattr(STAGE, "set_alias", set_alias)
    world.promote()
    assert world.aliases()["champion"] == 2
