"""A zip file from anybody, opened without its directory taking more memory than it may."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

# What np.savez and common programs write; others hold whole dictionaries of gigabytes in memory.
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource(io.BufferedReader):
    """A file that zipfile reads from: in no piece longer than the directory at its end may be.

    zipfile reads the directory in one piece, and holds some 700 bytes for each entry of it, which
    takes 46 bytes or more in the file.

    Args:
        advice: how to allow more, for the message.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: the directory is too long.
    """

    def __init__(self, path: Path, longest: int, advice: str = "") -> None:
        super().__init__(io.FileIO(path))
        self._longest, self._advice = longest, advice

    def read(self, size: int | None = -1, /) -> bytes:
        most = self._longest + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise zipfile.BadZipFile(
                f"its directory has more than {self._longest:,} bytes{self._advice}"
            )
        return content


def is_usual(member: zipfile.ZipInfo) -> bool:
    """Whether a member is neither encrypted nor compressed in an unusual way."""
    return not member.flag_bits & 1 and member.compress_type in KINDS
