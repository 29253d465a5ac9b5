"""Keyed seals: proof that a record was written by who holds a key (HMAC-SHA256, RFC 2104).

Unlike the plain seal, nobody can make one who may only edit what passes between steps.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from pydantic import BaseModel

from lrf_core.artifacts.seal import KEYED_SEAL, sealed_json, without_seals
from lrf_core.secrets.verdict_key import KEY_FILE_SETTING

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
