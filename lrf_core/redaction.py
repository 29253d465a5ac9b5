"""Redaction: no secret leaves the process, and no name steers a terminal.

Secrets are registered where they are read; those in the environment are known by the names of
their variables. Errors of lrf, its log and the printers of its commands pass through `shown`.
"""

from __future__ import annotations

import base64
import functools
import html
import json
import logging
import math
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

HIDDEN = "***"
# A shorter secret would take the letters out of every other word; see `credentials`.
SHORTEST = 4
# Of a variable that is not read by lrf: "true" and the like are no secrets.
_SHORTEST_FOREIGN = 8
# What is left of a secret in a text that was cut.
_SHORTEST_CUT = 8

_SECRET_VARIABLE = re.compile(
    r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|ACCESS_KEY|API_KEY|PRIVATE_KEY)$", re.IGNORECASE
)
_OWN = ("LRF_", "MLFLOW_", "KUBEFLOW_", "AWS_", "MINIO_")
# These name where a secret is. One that names nothing may hold the secret itself by mistake.
_PLACE_VARIABLES = (
    "LRF_S3_KEYS",
    "LRF_S3_SECRET",
    "LRF_SIGNING_KEY",
    "KUBEFLOW_REGISTRY_TOKEN_FILE",
    "KF_PIPELINES_SA_TOKEN_PATH",
    "AWS_SHARED_CREDENTIALS_FILE",
)
_KUBERNETES_NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.-]*")

# Text that holds a secret whoever gave it.
_VALUE = r"(?:(?!%26|&amp;)[^\s&\"'<>#;,)}\]\\])+"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL),
        HIDDEN,
    ),
    # user:password@ of an address; the password may hold a slash.
    (
        re.compile(
            r"(\b[a-z][a-z0-9+.-]*:(?:\\?/){2})(?:[^\s/:@'\"]+:[^\s@'\"]+|[^\s/?#@'\"]+)@", re.I
        ),
        rf"\g<1>{HIDDEN}@",
    ),
    # Headers, as text or as a mapping.
    (
        re.compile(
            r"((?:proxy-)?authorization|x-amz-security-token|x-auth-token|x-api-key|(?:set-)?cookie)"
            r"(\\?[\"']?\s*[:=]\s*(?:b(?=[\"']))?\\?[\"']?)(?:(?:bearer|basic|token|negotiate)\s+)?[^\s\"',;}\\]+",
            re.IGNORECASE,
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\b(basic)\s+(?=[a-z+/]*[\d=])[a-z0-9+/]{8,}={0,2}", re.I), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"), HIDDEN),
    # The queries of signed addresses: S3, GCS, Azure; and of addresses with a token.
    (
        re.compile(
            r"((?<![a-z0-9])(?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|"
            r"credential|awsaccesskeyid|googleaccessid|(?:[a-z]+_)?token|api_?key|client_secret|"
            rf"secret|password|passwd|pwd)(?:=|%3d))(?![${{]){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)

_registered: set[str] = set()


def register(*secrets: str | None) -> None:
    """Redact these from now on; what is shorter than SHORTEST is left out."""
    _registered.update(secret for secret in secrets if secret and len(secret.strip()) >= SHORTEST)


def register_pair(user: str, password: str) -> None:
    """Redact a password, and what HTTP makes of it together with its user."""
    register(password, base64.b64encode(f"{user}:{password}".encode()).decode())


def shown(text: object, *, lines: bool = False) -> str:
    """A text as it may be printed, logged or written: without secrets and control characters.

    Args:
        lines: whether line ends and tabs stay what they are.
    """
    return escaped(redacted(str(text)), lines=lines)


def one_line(reason: object, limit: int = 300) -> str:
    """What others say, as `shown`, on one line of readable length; cut after redaction."""
    text = shown(" ".join(redacted(str(reason)).split()))
    return text if len(text) <= limit else f"{text[:limit]}..."


def escaped(text: str, *, lines: bool = False) -> str:
    r"""A text with escapes (\x1b, \u202e) in place of characters that would steer a terminal.

    Args:
        lines: whether line ends and tabs stay what they are.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape").decode()
        for character in text
    )


def redacted(text: str) -> str:
    """A text with *** in place of known secrets, in any form, and of what looks like one."""
    known = frozenset((*_registered, *_in_environment()))
    if known:
        forms, inner = _compiled(known)
        text = forms.sub(HIDDEN, text)
        if inner is not None:
            text = inner.sub(HIDDEN, text)
        for secret in known:
            text = _without_cut(text, secret.strip())
    return _without_patterns(text)


def looks_secret(text: str) -> bool:
    """Whether a text holds a secret by its looks: a password in an address, a signed query."""
    return _without_patterns(text) != text


class Filter(logging.Filter):
    """Lets every record through, as `shown`: its message, and its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = shown(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] and not record.exc_text:
            lines = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            record.exc_text = lines
        if record.exc_text:
            record.exc_text = shown(record.exc_text, lines=True)
        return True


# Also where lrf is used as a library: its log goes through whatever handlers there are.
logging.getLogger("lrf").addFilter(Filter())


def _in_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name in _PLACE_VARIABLES:
            if not _is_place(value):
                yield value
        elif len(value.strip()) >= (_shortest_in(name) or math.inf):
            yield value


@functools.lru_cache
def _shortest_in(variable: str) -> int | None:
    """The least length of a secret in a variable; None if its name is not that of a secret."""
    if not _SECRET_VARIABLE.search(variable):
        return None
    return SHORTEST if variable.startswith(_OWN) else _SHORTEST_FOREIGN


def _without_patterns(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _is_place(value: str) -> bool:
    if _KUBERNETES_NAME.fullmatch(value) or len(value) < SHORTEST:
        return True
    path = Path(value)
    beside = str(path.parent) not in ("/", ".") and os.path.isdir(path.parent)  # noqa: PTH112
    return os.path.exists(value) or beside  # noqa: PTH110 Path.exists raises for a long name


@functools.lru_cache(maxsize=8)
def _compiled(known: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    texts = {text for secret in known for text in _texts(secret)}
    forms = {form for text in texts for form in _forms(text)}
    inner = {part for text in texts for part in _inside_base64(text)}
    run = "[A-Za-z0-9+/_-]"
    return (
        _any_of(forms),
        re.compile(f"(?<!{run}){run}*?(?:{_any_of(inner).pattern}){run}*=*") if inner else None,
    )


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    either_case = (re.sub("%..", r"(?i:\g<0>)", re.escape(text)) for text in longest_first)
    return re.compile("|".join(either_case))


def _texts(secret: str) -> Iterator[str]:
    """The secret with and without what is around it; of several lines, each long one."""
    stripped = secret.strip()
    yield from (secret, stripped)
    if "\n" in stripped:
        yield " ".join(stripped.split())
        yield from (line for line in map(str.strip, stripped.splitlines()) if len(line) >= 16)


def _forms(text: str) -> Iterator[str]:
    """What libraries, URLs and files make of a text."""
    yield from (text, repr(text)[1:-1], repr(text.encode())[2:-1], html.escape(text))
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    yield from (quote(text), quote(text, safe=""), quote_plus(text))
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(text.encode()).decode()


def _inside_base64(text: str, shortest: int = 5) -> Iterator[str]:
    """The characters that a text gives wherever it lies in what is encoded, `user:password` say."""
    content = text.encode()
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(bytes(before) + content).decode()
            whole = encoded[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
            if len(whole) >= shortest:
                yield whole


def _without_cut(text: str, secret: str) -> str:
    """A text without the beginning of a secret that was cut off."""
    start = text.find(secret[:_SHORTEST_CUT]) if len(secret) > _SHORTEST_CUT else -1
    while start >= 0:
        end = start + _common(text[start:], secret)
        cut = end == len(text) or not (text[end].isalnum() or text[end] in "-_")
        if cut:
            text, end = text[:start] + HIDDEN + text[end:], start
        start = text.find(secret[:_SHORTEST_CUT], max(end, start + 1))
    return text


def _common(one: str, other: str) -> int:
    """How many characters are the same at the beginning of both."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
