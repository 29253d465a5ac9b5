"""A release can be signed with a key; one that is signed otherwise, or not, is refused."""

from __future__ import annotations

import hashlib
import importlib
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
from sound_verdict import sound_verdict
from tiny import tiny_cnn

from lrf_core.artifacts import Release, ReleaseFile
from lrf_core.artifacts.seal import sealed_json
from lrf_core.commands import app as cli
from lrf_core.errors import ArtifactError, PublishRefusedError, SpecError
from lrf_core.models.load import model_digest
from lrf_core.releases import read_index, resolve, verify_version
from lrf_core.releases.signing import check_release_signature, signing_key
from lrf_core.spec import PublishSpec
from lrf_core.stages import publish
from lrf_core.storage.local import LocalStore

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
    verdict = sound_verdict(model_digest(model))
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
    with pytest.raises(PublishRefusedError, match=r"is signed with sha256:.* not with sha256:"):
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


def test_the_signature_is_checked_before_the_stored_model_is_opened(
    model: keras.Model, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing = importlib.import_module("lrf_core.stages.publish")
    opened: list[Path] = []
    monkeypatch.setattr(publishing, "load_model", opened.append)
    others = Keys(tmp_path, "others")
    with pytest.raises(PublishRefusedError, match="is signed with"):
        publish_signed(
            model, tmp_path / "store", signing_key=keys.private, public_key=others.public
        )
    assert opened == []


def test_a_signature_that_was_damaged_is_refused(
    model: keras.Model, keys: Keys, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    release = publish_signed(model, store.root, signing_key=keys.private)
    signature = store.root / "tiny" / release.version / "signature.json"
    signature.write_bytes(signature.read_bytes().replace(b"A", b"B", 1))

    assert verify_version(store, "tiny", 1) == ["signature.json"]
    with pytest.raises(PublishRefusedError, match="its signature does not fit its files"):
        check_release_signature(store, release, str(keys.public))


def test_what_was_changed_with_all_its_digests_is_found_by_the_signature_only(
    model: keras.Model, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can write to the store can make everything fit, but not sign it."""
    store = LocalStore(tmp_path / "store")
    release = publish_signed(model, store.root, signing_key=keys.private)
    planted = b"{}"
    digest = hashlib.sha256(planted).hexdigest()
    files = tuple(
        ReleaseFile(path=file.path, size=len(planted), sha256=digest)
        if file.path == "sbom.json"
        else file
        for file in release.files
    )
    forged = release.model_copy(update={"files": files})
    manifest = forged.model_dump_json(indent=2).encode()
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    for content, sha256, path in (
        (planted, digest, "sbom.json"),
        (manifest, manifest_digest, "manifest.json"),
    ):
        store.put(f"blobs/{sha256}", content)
        store.put(f"tiny/{release.version}/{path}", content)
    index = read_index(store, "tiny")
    assert index is not None
    entry = index.versions[0].model_copy(update={"manifest_sha256": manifest_digest})
    store.put("tiny/index.json", sealed_json(index.model_copy(update={"versions": (entry,)})))

    verify = ["releases", "verify", "tiny", "--from", str(store.root)]
    with pytest.raises(SystemExit) as ended:
        cli.app(verify)
    assert ended.value.code == 0
    assert "tiny 1" in capsys.readouterr().out
    with pytest.raises(PublishRefusedError, match="its signature does not fit its files"):
        cli.app([*verify, "--public-key", str(keys.public)], standalone_mode=False)


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
