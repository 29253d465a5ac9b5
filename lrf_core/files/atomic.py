"""Files that are either whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrf_core.errors import ArtifactError
from lrf_core.files.scratch import file_beside


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there."""
    write_atomically_with(target, lambda temporary: Path(temporary).write_bytes(content))


def write_atomically_with(target: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary file beside `target` (same suffix), then move it there.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    try:
        with file_beside(target.parent, target.suffix) as temporary:
            write(str(temporary))
            temporary.chmod(0o644)
            temporary.replace(target)
    except OSError as error:
        raise ArtifactError(f"cannot write {target}: {error.strerror or error}") from None
