"""Only what was judged, passed, and is whole may be served."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import local_releases
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from local_releases import NAME, verdict_on
from promotions import World

from lrf_core.artifacts import Release
from lrf_core.errors import PublishRefusedError, SpecError
from lrf_core.releases import resolve
from lrf_core.spec import GateSpec, PromoteSpec
from lrf_core.stages import promotable
from lrf_core.stages.override import override_of
from lrf_core.stages.promotable import check_release
from lrf_core.storage import Store, open_store

SETTINGS = PromoteSpec(service="team/digits")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return local_releases.small_model(3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def written(store: Store, model: keras.Model, *arguments: Any) -> Release:
    """A release as its manifest has it, whoever reads it."""
    version = local_releases.write_release(store, model, *arguments)
    return Release.model_validate_json(store.get(f"{NAME}/{version}/manifest.json"))


def test_a_sound_release_is_served(store: Store, model: keras.Model) -> None:
    recorded = check_release(store, written(store, model, verdict_on(model)), SETTINGS)
    assert (recorded.count, list(recorded.inputs)) == (8, ["image"])


def test_what_did_not_pass_is_refused(store: Store, model: keras.Model) -> None:
    release = written(store, model, verdict_on(model, lost=20))
    with pytest.raises(
        PublishRefusedError, match=r"did not pass the gate \(failed: accuracy_drop\)"
    ):
        check_release(store, release, SETTINGS)


def test_what_was_overridden_is_served_only_where_that_is_allowed(
    store: Store, model: keras.Model, caplog
) -> None:
    verdict = verdict_on(model, lost=20)
    override = override_of(verdict, by="A. Miller", reason="served on a GPU only")
    release = written(store, model, verdict, override)
    with pytest.raises(PublishRefusedError, match=r"A\. Miller: served on a GPU.*--allow-override"):
        check_release(store, release, SETTINGS)
    allowed = SETTINGS.model_copy(update={"allow_override": True})
    with caplog.at_level(logging.WARNING, logger="lrf"):
        check_release(store, release, allowed)
    assert "promoted by decision of A. Miller" in caplog.text


def test_a_verdict_with_checks_removed_is_refused(store: Store, model: keras.Model) -> None:
    """Sealed again, and named by the manifest: only its own numbers tell."""
    failed = verdict_on(model, lost=20)
    passing = tuple(check for check in failed.checks if check.passed)
    forged = failed.model_copy(update={"checks": passing, "passed": True})
    with pytest.raises(PublishRefusedError, match="check accuracy_drop is missing"):
        check_release(store, written(store, model, forged), SETTINGS)


def test_a_verdict_of_an_older_version_is_to_be_judged_again(
    store: Store, model: keras.Model
) -> None:
    older = verdict_on(model).model_copy(update={"schema_version": 1, "evidence": None})
    with pytest.raises(PublishRefusedError, match=r"older version of lrf.*judge the model again"):
        check_release(store, written(store, model, older), SETTINGS)


def test_where_a_key_is_named_the_verdict_must_be_sealed_with_it(
    store: Store, model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsealed = written(store, model, verdict_on(model))
    (tmp_path / "key").write_text("k" * 32)
    monkeypatch.setenv("LRF_VERDICT_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(PublishRefusedError, match="not sealed with the key") as caught:
        check_release(store, unsealed, SETTINGS)
    assert f"of release {NAME}/" in str(caught.value)
    other = local_releases.small_model(4)
    check_release(store, written(store, other, verdict_on(other)), SETTINGS)
    (tmp_path / "key").write_text("o" * 32)
    with pytest.raises(PublishRefusedError, match="sealed with another key"):
        check_release(store, resolve(store, NAME, "latest").release, SETTINGS)


def test_the_signature_is_checked_before_any_file_is_opened(
    store: Store,
    model: keras.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = written(store, model, verdict_on(model))
    opened: list[str] = []
    for name in ("_fetched", "_read_verdict", "load_model", "sample_answers"):
        monkeypatch.setattr(promotable, name, lambda *given, name=name: opened.append(name))
    key = tmp_path / "key.pub"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    signed = SETTINGS.model_copy(update={"public_key": str(key)})
    with pytest.raises(PublishRefusedError, match="is not signed"):
        check_release(store, release, signed)
    assert opened == []


def test_an_altered_override_is_refused(store: Store, model: keras.Model) -> None:
    verdict = verdict_on(model, lost=20)
    override = override_of(verdict, by="A. Miller", reason="served on a GPU only")
    altered = override.model_copy(update={"checks": ()})
    allowed = SETTINGS.model_copy(update={"allow_override": True})
    with pytest.raises(PublishRefusedError, match="override was altered"):
        check_release(store, written(store, model, verdict, altered), allowed)


def test_a_verdict_by_other_limits_than_asked_for_is_refused(
    store: Store, model: keras.Model
) -> None:
    lax, strict = GateSpec(max_accuracy_drop=1.0), GateSpec(max_accuracy_drop=0.5)
    release = written(store, model, verdict_on(model, gate=lax))
    check_release(store, release, SETTINGS, lax)
    with pytest.raises(PublishRefusedError, match=r"max_accuracy_drop \(1\.0 instead of 0\.5\)"):
        check_release(store, release, SETTINGS, strict)


def test_a_verdict_on_another_model_is_refused(store: Store, model: keras.Model) -> None:
    other = verdict_on(local_releases.small_model(4))
    with pytest.raises(PublishRefusedError, match="is about model"):
        check_release(store, written(store, model, other), SETTINGS)


def test_a_verdict_that_contradicts_itself_is_refused(store: Store, model: keras.Model) -> None:
    altered = verdict_on(model, lost=20).model_copy(update={"passed": True})
    with pytest.raises(PublishRefusedError, match="altered"):
        check_release(store, written(store, model, altered), SETTINGS)


def test_another_verdict_than_the_manifest_names_is_refused(
    store: Store, model: keras.Model
) -> None:
    release = written(store, model, verdict_on(model))
    other = release.model_copy(update={"verdict_digest": "0" * 64})
    with pytest.raises(PublishRefusedError, match="one of them was altered"):
        check_release(store, other, SETTINGS)


def test_a_manifest_of_another_model_is_refused(store: Store, model: keras.Model) -> None:
    release = written(store, model, verdict_on(model))
    other = release.model_copy(update={"model_digest": "0" * 64})
    with pytest.raises(PublishRefusedError, match="its manifest was altered"):
        check_release(store, other, SETTINGS)


@pytest.mark.parametrize("path", ["verdict.json", "saved_model/1/saved_model.pb", "model.keras"])
def test_a_damaged_file_is_named(store: Store, model: keras.Model, path: str) -> None:
    release = written(store, model, verdict_on(model))
    key = f"{NAME}/{release.version}/{path}"
    content = bytearray(store.get(key))
    content[len(content) // 2] ^= 1
    store.put(key, bytes(content))
    with pytest.raises(PublishRefusedError, match=f"is damaged: {path}"):
        check_release(store, release, SETTINGS)


@pytest.mark.parametrize("path", ["verdict.json", "saved_model/", "answers.npz", "model.keras"])
def test_a_release_without_a_file_is_refused(store: Store, model: keras.Model, path: str) -> None:
    release = written(store, model, verdict_on(model))
    for key in list(store.list(f"{NAME}/{release.version}/{path}")):
        store.delete(key)
    fewer = tuple(file for file in release.files if not file.path.startswith(path))
    with pytest.raises(PublishRefusedError, match=f"holds no {path.rstrip('/')}"):
        check_release(store, release.model_copy(update={"files": fewer}), SETTINGS)


def test_an_unsigned_release_is_refused_where_a_key_is_given(
    store: Store, model: keras.Model
) -> None:
    release = written(store, model, verdict_on(model))
    signed = SETTINGS.model_copy(update={"public_key": "key.pem"})
    with pytest.raises((PublishRefusedError, SpecError)):
        check_release(store, release, signed)


def test_what_may_not_be_served_reaches_no_cluster(world: World, model: keras.Model) -> None:
    store = open_store(world.store.as_uri())
    version = world.made.versions["new"]
    store.put(f"{NAME}/{version}/verdict.json", b"{}")
    with pytest.raises(PublishRefusedError, match=r"damaged: verdict\.json"):
        world.promote()
    assert world.cluster.requests == []
