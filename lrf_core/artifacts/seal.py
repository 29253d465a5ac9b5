"""Seals, plain or with a key. A plain one: the sha256 of a record's own content, kept in its file.

It finds a file that was damaged, or edited by someone who did not mean to forge it. Whoever can
write the file can also make a new seal, for no secret is in it: against forgery there are keyed
seals (below) and signatures (`releases.signing`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lrf_core.artifacts.record import digest_of
from lrf_core.errors import ArtifactError
from lrf_core.secrets.verdict_key import KEY_FILE_SETTING

SEAL = "seal"
# Beside it, in the files of who has a key: see `artifacts.keyed_seal`.
KEYED_SEAL = "keyed_seal"

_Record = TypeVar("_Record", bound=BaseModel)


def sealed_json(record: BaseModel) -> bytes:
    """The record as JSON, with its seal beside its own fields."""
    content = json.loads(record.model_dump_json())
    return json.dumps({**content, SEAL: digest_of(content)}, indent=2).encode() + b"\n"


def is_sealed(content: dict[str, Any]) -> bool:
    """Whether the content of a file has a seal, and the seal fits."""
    seal = content.get(SEAL)
    return isinstance(seal, str) and hmac.compare_digest(
        seal.encode(), digest_of(without_seals(content)).encode()
    )


def unsealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a sealed file without the seal. Raises ValueError unless the seal fits."""
    if not is_sealed(content):
        raise ValueError("it was changed since it was written (its seal does not fit)")
    return without_seals(content)


def without_seals(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file except its seals."""
    return {key: value for key, value in content.items() if key not in (SEAL, KEYED_SEAL)}


def read_sealed(kind: type[_Record], content: bytes, where: str) -> _Record:
    """A record from the bytes that `sealed_json` gave.

    Raises:
        ArtifactError: any byte is another one, or it is no such record.
    """
    try:
        record = kind.model_validate(unsealed(json.loads(content)))
        intact = sealed_json(record) == content
    except ValidationError as error:
        raise ArtifactError(
            f"{where} is no {kind.__name__} of this version: {error.errors()[0]['msg']}"
        ) from None
    except (ValueError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise ArtifactError(
            f"{where} is damaged or was changed by hand; restore it from a backup of the store"
        )
    return record


# What else the same key may be used for must not pass for a seal.
_PURPOSE = b"lrf verdict seal 1\n"


def keyed_json(record: BaseModel, key: bytes) -> bytes:
    """The record as JSON with both seals beside its own fields."""
    content = json.loads(sealed_json(record))
    keyed = {"key": _name_of(key), "hmac": _hmac(without_seals(content), key)}
    return json.dumps({**content, KEYED_SEAL: keyed}, indent=2).encode() + b"\n"


def fits_key(content: dict[str, Any], key: bytes) -> str:
    """Why the content of a file is not sealed with a key, in words; empty if it is."""
    keyed = content.get(KEYED_SEAL)
    if not isinstance(keyed, dict) or not isinstance(keyed.get("hmac"), str):
        return f"is not sealed with the key that {KEY_FILE_SETTING} names"
    if hmac.compare_digest(keyed["hmac"].encode(), _hmac(without_seals(content), key).encode()):
        return ""
    if keyed.get("key") != _name_of(key):
        return f"is sealed with another key than the one that {KEY_FILE_SETTING} names"
    return "was changed since it was sealed with the key"


def _hmac(content: dict[str, Any], key: bytes) -> str:
    canonical = json.dumps(content, sort_keys=True).encode()
    return hmac.new(key, _PURPOSE + canonical, hashlib.sha256).hexdigest()


def _name_of(key: bytes) -> str:
    """Tells keys apart, and nothing of what is in them."""
    return hmac.new(key, b"lrf verdict key", hashlib.sha256).hexdigest()[:12]
