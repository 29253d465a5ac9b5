"""A release can be signed with a key; one that is signed otherwise, or not, is refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tiny import tiny_cnn

from lrf_core.artifacts import Check, Cost, Lineage, ModelMeasures, Release, Verdict
from lrf_core.errors import ArtifactError, PublishRefusedError, SpecError
from lrf_core.models.load import model_digest
from lrf_core.releases import resolve, verify_version
from lrf_core.releases.signing import check_release_signature, signing_key
from lrf_core.spec import PublishSpec
from lrf_core.stages import publish
from lrf_core.storage import LocalStore

pytest.importorskip("model_signing", reason="needs the extra signing")
pytestmark = pytest.mark.usefixtures("exported_once")

PASSWORD = "password-of-the-signing-key"


class Keys:
    """A pair of keys in PEM files."""

    def __init__(self, folder: Path, name: str, password: str | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub"
        locked = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        self.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
        self.public.write_bytes(
            key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    for name in ("LRF_SIGNING_KEY", "LRF_SIGNING_KEY_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return Keys(tmp_path, "ours")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn()


def publish_signed(model: keras.Model, to: Path, **keys: Path) -> Release:
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    verdict = Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=True,
        baseline_digest="b" * 64,
        candidate_digest=model_digest(model),
        checks=(Check(name="accuracy_drop", limit="<= 1", measured="0.2", passed=True),),
        baseline=measures,
        candidate=measures,
    )
    settings = PublishSpec(**{name: str(key) for name, key in keys.items()})
    return publish(model, verdict, str(to), name="tiny", attachments={}, settings=settings)


def test_a_signed_release_is_verified_with_the_public_key(
    model: keras.Model, keys: Keys, tmp_path: Path
) -> None:
    to = tmp_path / "store"
    release = publish_signed(model, to, signing_key=keys.private, public_key=keys.public)
    store = LocalStore(to)

    assert release.signed_by is not None
    assert release.signed_by.startswith("sha256:")
    assert verify_version(store, "tiny", 1) == []
    check_release_signature(store, release, str(keys.public))
    # The plain tool agrees, for whoever has no lrf.
    folder = to / "tiny" / release.version
    tool = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    options = ["--signature", str(folder / "signature.json"), "--public_key", str(keys.public)]
    done = subprocess.run([*tool, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_that_is_not_signed_as_asked_for_is_refused(
    model: keras.Model, keys: Keys, tmp_path: Path
) -> None:
    others = Keys(tmp_path, "others")
    unsigned = publish_signed(model, tmp_path / "unsigned")
    signed = publish_signed(model, tmp_path / "signed", signing_key=others.private)
    with pytest.raises(PublishRefusedError, match="is not signed, but"):
        check_release_signature(LocalStore(tmp_path / "unsigned"), unsigned, str(keys.public))
    with pytest.raises(PublishRefusedError, match="is signed with sha256:.* not with sha256:"):
        check_release_signature(LocalStore(tmp_path / "signed"), signed, str(keys.public))
    # Nor does publishing it once more, signed, pass it off as signed.
    for to in ("unsigned", "signed"):
        with pytest.raises(PublishRefusedError, match="signed"):
            publish_signed(model, tmp_path / to, signing_key=keys.private)
        with pytest.raises(PublishRefusedError, match="signed"):
            publish_signed(model, tmp_path / to, public_key=keys.public)


def test_nothing_is_visible_where_the_signature_is_not_the_one_asked_for(
    model: keras.Model, keys: Keys, tmp_path: Path
) -> None:
    others = Keys(tmp_path, "others")
    with pytest.raises(PublishRefusedError, match="is signed with"):
        publish_signed(
            model, tmp_path / "store", signing_key=keys.private, public_key=others.public
        )
    with pytest.raises(ArtifactError, match="no release of 'tiny'"):
        resolve(LocalStore(tmp_path / "store"), "tiny", "latest")


@pytest.mark.parametrize("path", ["plan.json", "manifest.json", "signature.json", "sbom.json"])
def test_what_was_changed_with_all_its_digests_is_still_found_by_the_signature(
    model: keras.Model, keys: Keys, tmp_path: Path, path: str
) -> None:
    """Whoever can write to the store can make everything fit, but not sign it."""
    store = LocalStore(tmp_path / "store")
    release = publish_signed(model, store.root, signing_key=keys.private)
    folder = store.root / "tiny" / release.version
    if path == "plan.json":
        (folder / path).write_text("planted")
    else:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content.replace(b"0", b"1", 1))
    altered = release
    if path == "sbom.json":
        files = tuple(
            file.model_copy(update={"sha256": store.stat(f"tiny/{release.version}/{path}").sha256})
            if file.path == path
            else file
            for file in release.files
        )
        altered = release.model_copy(update={"files": files})
    if path == "plan.json":
        assert verify_version(store, "tiny", 1) == ["plan.json"]
        return
    with pytest.raises(PublishRefusedError, match="its signature does not fit its files"):
        check_release_signature(store, altered, str(keys.public))


def test_a_key_with_a_password_and_from_the_environment(
    model: keras.Model,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    locked = Keys(tmp_path, "locked", PASSWORD)
    monkeypatch.setenv("LRF_SIGNING_KEY", str(locked.private))
    with pytest.raises(SpecError, match="LRF_SIGNING_KEY_PASSWORD"):
        publish_signed(model, tmp_path / "store")
    monkeypatch.setenv("LRF_SIGNING_KEY_PASSWORD", "another password")
    with pytest.raises(SpecError, match="LRF_SIGNING_KEY_PASSWORD") as caught:
        publish_signed(model, tmp_path / "store")
    assert "another password" not in str(caught.value)
    assert not (tmp_path / "store").exists()
    monkeypatch.setenv("LRF_SIGNING_KEY_PASSWORD", PASSWORD)
    with caplog.at_level(logging.DEBUG):
        release = publish_signed(model, tmp_path / "store", public_key=locked.public)

    assert release.signed_by
    private = b"".join(locked.private.read_bytes().splitlines()[1:-1])
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert PASSWORD.encode() not in content
            assert private[:40] not in content
    assert PASSWORD not in caplog.text


def test_what_is_no_key_is_refused_before_anything_is_written(
    model: keras.Model, keys: Keys, tmp_path: Path
) -> None:
    no_key = tmp_path / "no.pem"
    no_key.write_text("secret text that is no key")
    rsa_key = tmp_path / "rsa.pem"
    rsa_key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    for wrong in (no_key, rsa_key, keys.public, tmp_path / "missing.pem"):
        with pytest.raises(SpecError, match="key") as caught:
            publish_signed(model, tmp_path / "store", signing_key=wrong)
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="public key"):
        publish_signed(model, tmp_path / "store", public_key=keys.private)
    assert not (tmp_path / "store").exists()
    assert signing_key(None) is None
