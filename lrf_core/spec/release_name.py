"""What a release can be called: a folder of the store that nothing else is taken for."""

from __future__ import annotations

import logging
import re

from lrf_core.errors import SpecError

_logger = logging.getLogger("lrf")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
# Numbers and versions, in `lrf releases show NAME REF`.
_REFERENCE = re.compile(r"[0-9]+|v-[0-9a-f.]*")
# Aliases, folders of a store, files of a release, and words of the command line.
_RESERVED = frozenset(
    {
        "latest",
        "champion",
        "previous",
        "blobs",
        "releases",
        "index.json",
        "intent.json",
        "manifest.json",
        "signature.json",
    }
)


def release_name(name: str) -> str:
    """The name in lower case. Raises SpecError for one that cannot be used."""
    lowered = name.lower()
    if not NAME.fullmatch(lowered):
        raise SpecError(
            f"release name {name!r:.140} is not usable; start with a letter or digit and use only "
            "a-z, 0-9, '.', '_' and '-', at most 128"
        )
    if lowered in _RESERVED or _REFERENCE.fullmatch(lowered):
        raise SpecError(
            f"release name {name!r:.140} is not usable: it would be taken for a number, a version, "
            "an alias or a part of the store; choose another in publish.name or --name"
        )
    if lowered != name:
        _logger.info("release name '%s' is written '%s'", name, lowered)
    return lowered
