"""Who of several controllers works."""

from __future__ import annotations

import os
import socket
import uuid
from typing import Protocol


class Leader(Protocol):
    """Whether this process may work."""

    def is_leader(self) -> bool:
        """Whether it may right now."""


class Alone:
    """Without an election: compare-and-swap alone decides between controllers."""

    def is_leader(self) -> bool:
        """Always."""
        return True


def identity() -> str:
    """Names this process in a Lease and in claims; the next one after it has another name."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:12]}"
