"""Passwords and tokens, as clients need them: cleaned and checked when read, redacted from then on.

Mounted secrets end in a line end more often than not, and clients quote what they cannot send.
"""

from __future__ import annotations

import os
from pathlib import Path

from lrf_core.errors import CredentialError
from lrf_core.redaction import SHORTEST, register


def password_in(variable: str) -> str | None:
    """The password that a variable holds, without line ends around it; None if it is not set.

    Raises:
        CredentialError: it is too short to be redacted.
    """
    value = os.environ.get(variable, "").strip("\r\n")
    return _checked(value, f"the variable {variable}") if value else None


def token_in(variable: str) -> str | None:
    """The token that a variable holds, without blanks around it; None if it is not set.

    Raises:
        CredentialError: it cannot be sent in a header, or is too short to be redacted.
    """
    value = os.environ.get(variable, "")
    return token(value, f"the variable {variable}") if value.strip() else None


def token_from(path: Path, why: str) -> str:
    """The token in a file.

    Args:
        why: names the file for a message: a variable, say, since its value may be a secret.

    Raises:
        CredentialError: it cannot be read, sent in a header, or redacted.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise CredentialError(f"cannot read the token in {path} ({why}): {reason}") from None
    return token(content, f"{path} ({why})")


def token(value: str, where: str) -> str:
    """A token that can be sent in a header.

    Raises:
        CredentialError: it cannot, or is too short to be redacted.
    """
    value = value.strip()
    if not value or not value.isascii() or not value.isprintable():
        raise CredentialError(f"{where} holds no token that can be sent; mount one")
    return _checked(value, where)


def _checked(value: str, where: str) -> str:
    if len(value) < SHORTEST:
        raise CredentialError(
            f"{where} holds a secret of fewer than {SHORTEST} characters, which cannot be kept out "
            "of logs; use a longer one"
        )
    register(value)
    return value
