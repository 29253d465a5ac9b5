"""What a version is to be made of, written down before anything lies in its directory."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import Field

from lrf_core.artifacts import Record

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
