"""Where everything of a release lies in a store: the keys, and the aliases that can be used."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import Field

from lrf_core.artifacts import Record, Release, digest_of
from lrf_core.errors import SpecError
from lrf_core.spec.release_name import NAME

BLOBS = "blobs"
INDEX_FILE = "index.json"
INTENT_FILE = "intent.json"
SIGNATURE_FILE = "signature.json"
SAVED_MODEL = "saved_model"

_VERSION = re.compile(r"v-[0-9a-f]{12}")
_BLOB = re.compile(rf"{BLOBS}/[0-9a-f]{{64}}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def version_of(name: str, model_digest: str) -> str:
    """The version of a model's content under a name: the same content is the same version."""
    return f"v-{digest_of({'name': name, 'model': model_digest})[:12]}"


def check_alias(alias: str) -> str:
    """Return the alias if it can be told from a number and a version. Raises SpecError."""
    if not _ALIAS.fullmatch(alias) or _VERSION.fullmatch(alias):
        raise SpecError(
            f"alias {alias!r:.80} is not usable; start with a letter and use only a-z, 0-9, '_' "
            "and '-', at most 64"
        )
    return alias


def is_version(word: str) -> bool:
    """Whether it has the form of a version, `v-` and 12 hex digits."""
    return _VERSION.fullmatch(word) is not None


def is_blob(key: str) -> bool:
    """Whether it is the key of a blob."""
    return _BLOB.fullmatch(key) is not None


def blob_key(sha256: str) -> str:
    """Of content by its digest (hex)."""
    return f"{BLOBS}/{sha256}"


def file_key(name: str, version: str, path: str) -> str:
    """Of a file in the directory of a version."""
    return f"{name}/{version}/{path}"


def manifest_key(name: str, version: str) -> str:
    """Of the file that makes a release of a directory."""
    return file_key(name, version, Release.file_name)


def index_key(name: str) -> str:
    """Of the list of a name's versions and aliases."""
    return f"{name}/{INDEX_FILE}"


def version_in(key: str) -> tuple[str, str, str] | None:
    """Name, version and path of a file in a version's directory; None for another key."""
    name, _, below = key.partition("/")
    version, _, path = below.partition("/")
    if path and NAME.fullmatch(name) and _VERSION.fullmatch(version):
        return name, version, path
    return None


# Garbage is collected a day after it was written, by default. What is older than this is written
# again before it is relied on.
FRESH = timedelta(hours=1)


class Intent(Record):
    """What a version is to be made of: the first one written is the one that all finish.

    Attributes:
        started: when, ISO 8601, by the publisher's clock.
        manifest, signature: the text of these files.
    """

    schema_version: Literal[1] = 1
    started: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    manifest: str
    signature: str | None = None

    def digests(self) -> list[str]:
        """sha256 (hex) of the contents that are kept as blobs beside the release's files."""
        contents = [self.manifest, self.signature]
        return [
            hashlib.sha256(content.encode()).hexdigest()
            for content in contents
            if content is not None
        ]

    def is_old(self) -> bool:
        """Whether garbage collection may soon take it for abandoned."""
        return datetime.now(UTC) - datetime.fromisoformat(self.started) > FRESH
