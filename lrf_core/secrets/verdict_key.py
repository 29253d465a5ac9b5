"""The key of verdicts: a file that the steps which judge and publish can read, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

from lrf_core.errors import SpecError

KEY_FILE_SETTING = "LRF_VERDICT_KEY_FILE"
LEAST_KEY_BYTES = 32


def verdict_key() -> bytes | None:
    """The key in the file that LRF_VERDICT_KEY_FILE names, without line ends behind it.

    Returns:
        None if the variable is not set.

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
