"""A release gets into service step by step."""

from __future__ import annotations

import copy
import importlib
import json
import logging
from pathlib import Path
from typing import Any

import local_releases
import pytest
from kserve_api import NAME, NAMESPACE
from promotions import World, shares_of_new

from lrf_core.errors import PromotionError, PublishRefusedError
from lrf_core.export.saved_model import SavedModel
from lrf_core.serving.plan import RELEASE, ROLLBACK, TAG_ROUTING
from lrf_core.stages.promote import NotPromotedError, preview, roll_back

# The function has the module's name in its package.
STAGE = importlib.import_module("lrf_core.stages.promote")


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
