"""Keyed seals: proof that a record was written by who holds a key (HMAC-SHA256, RFC 2104).

The key is a file of at least 32 bytes, named by LRF_VERDICT_KEY_FILE, that the steps which judge
and publish can read, and nobody who may edit what passes between them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lrf_core.artifacts.seal import KEYED_SEAL, sealed_json, without_seals
from lrf_core.errors import SpecError

KEY_FILE_SETTING = "LRF_VERDICT_KEY_FILE"
LEAST_KEY_BYTES = 32

# What else the same key may be used for must not pass for a seal.
_PURPOSE = b"lrf verdict seal 1\n"


def seal_key() -> bytes | None:
    """The key in the file that LRF_VERDICT_KEY_FILE names, without line ends behind it.

    Returns:
        None where the variable is not set.

    Raises:
        SpecError: the file cannot be read, or the key is too short.
    """
    name = os.environ.get(KEY_FILE_SETTING)
    if not name:
        return None
    try:
        key = Path(name).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise SpecError(
            f"cannot read the key of verdicts {name} ({KEY_FILE_SETTING}): "
            f"{error.strerror or error}"
        ) from None
    if len(key) < LEAST_KEY_BYTES:
        raise SpecError(
            f"the key of verdicts {name} ({KEY_FILE_SETTING}) has {len(key)} bytes, at least "
            f"{LEAST_KEY_BYTES} are needed; make one with: openssl rand -hex 32"
        )
    return key


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
