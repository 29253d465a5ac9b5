"""Sign a release with a key, and check who signed it: `model-signing`, offline (extra `signing`).

The signature is a Sigstore bundle over the sha256 of every file in the version's directory, the
manifest included. It needs no service: whoever has the public key can check it with
`model_signing verify key` as well.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrf_core.artifacts import Release
from lrf_core.errors import PublishRefusedError, SpecError
from lrf_core.files.scratch import scratch_folder
from lrf_core.releases.layout import SIGNATURE_FILE, file_key
from lrf_core.releases.verify import fetch_release, get_sound
from lrf_core.secrets.credentials import password_in
from lrf_core.storage import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

KEY_SETTING = "LRF_SIGNING_KEY"
PASSWORD_SETTING = "LRF_SIGNING_KEY_PASSWORD"  # noqa: S105 - the name of a setting
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True)
class SigningKey:
    """A private key that could be read.

    Attributes:
        file: that it is in.
        fingerprint: of its public half, `sha256:...`.
        public: its public half, PEM.
    """

    file: Path
    fingerprint: str
    public: bytes


def signing_key(asked: str | None) -> SigningKey | None:
    """The key to sign with: the file asked for, else the one that LRF_SIGNING_KEY names.

    The password of an encrypted key comes from LRF_SIGNING_KEY_PASSWORD.

    Returns:
        None if neither names a file.

    Raises:
        SpecError: the file is missing, is no such key, needs another password, or the extra
            `signing` is not installed.
    """
    name = asked or os.environ.get(KEY_SETTING)
    if not name:
        return None
    _needed("model_signing.signing")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(Path(name), "signing key")
    try:
        key: Any = load_pem_private_key(content, _password())
    except (ValueError, TypeError):
        # Not the reason: a library's words may hold parts of a key.
        raise SpecError(
            f"the signing key {name} cannot be read; give a PEM file with a private elliptic-curve "
            f"key, and its password, if it has one, in {PASSWORD_SETTING}"
        ) from None
    public = key.public_key()
    _check_curve(public, name)
    return SigningKey(Path(name), _fingerprint(public), _pem(public))


def sign(folder: Path, key: SigningKey) -> bytes:
    """The signature over all files in a folder, as the content of `signature.json`.

    Args:
        folder: holds the files of the release and its manifest, and nothing else.
    """
    signing = _needed("model_signing.signing")
    target = folder.with_name(f"{folder.name}-{SIGNATURE_FILE}")
    config = signing.Config().use_elliptic_key_signer(private_key=key.file, password=_password())
    config.sign(folder, target)
    return target.read_bytes()


def fingerprint_of(public_key: str) -> str:
    """`sha256:...` of a public key in a PEM file.

    Raises:
        SpecError: the file is missing, or is no public elliptic-curve key.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(Path(public_key), "public key")
    try:
        key: Any = load_pem_public_key(content)
    except ValueError:
        raise SpecError(
            f"the public key {public_key} cannot be read; give a PEM file with a public "
            "elliptic-curve key"
        ) from None
    _check_curve(key, public_key)
    return _fingerprint(key)


def check_signature(folder: Path, signed_by: str | None, public_key: str, what: str) -> None:
    """Refuse a release that was not signed with the private half of a key.

    Args:
        folder: with all files of the release, its manifest, and `signature.json`.
        signed_by: what the manifest says.
        public_key: a PEM file.
        what: the release, for the message.

    Raises:
        PublishRefusedError: it is not signed, was signed with another key, or was changed since.
        SpecError: the public key cannot be used, or the extra `signing` is not installed.
    """
    verifying, hashing = _needed("model_signing.verifying"), _needed("model_signing.hashing")
    wanted = fingerprint_of(public_key)
    signature = folder / SIGNATURE_FILE
    if signed_by is None or not signature.is_file():
        raise PublishRefusedError(
            f"{what} is not signed, but a release signed with {wanted[:19]}... is asked for"
        )
    if signed_by != wanted:
        raise PublishRefusedError(
            f"{what} is signed with {signed_by[:19]}..., not with {wanted[:19]}... as asked for"
        )
    config = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
    hashed = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    try:
        config.set_hashing_config(hashed).verify(folder, signature)
    except Exception as error:
        # The library and what it rests on raise many types for bundles that are not sound.
        raise PublishRefusedError(
            f"{what} is not what was signed with {wanted[:19]}...: its signature does not fit its "
            f"files ({type(error).__name__})"
        ) from error


def check_release_signature(store: Store, release: Release, public_key: str) -> None:
    """Download a release and check it as `check_signature` does.

    Raises:
        ArtifactError: a file is missing or damaged.
        StorageError: the store cannot be read.
        PublishRefusedError, SpecError: as `check_signature` does.
    """
    with scratch_folder("verify") as scratch:
        folder = fetch_release(store, release, scratch)
        for path in (Release.file_name, SIGNATURE_FILE):
            content = get_sound(store, file_key(release.name, release.version, path))
            if content is not None:
                (folder / path).write_bytes(content)
        check_signature(folder, release.signed_by, public_key, release.location)


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SpecError(
            f"signatures need the extra 'signing' ({error.name or error} is missing); install "
            "lrf[signing]"
        ) from None


def _password() -> bytes | None:
    password = password_in(PASSWORD_SETTING)
    return password.encode() if password else None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read the {what} {path}: {error.strerror or error}") from None


def _check_curve(key: Any, where: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in _CURVES:
        raise SpecError(
            f"{where} is no elliptic-curve key of a kind that can sign here; use one of the curves "
            f"{', '.join(_CURVES)}"
        )


def _fingerprint(key: EllipticCurvePublicKey) -> str:
    return f"sha256:{hashlib.sha256(_pem(key)).hexdigest()}"


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
