"""Try a request again when the network or the server fails in passing: backoff, jitter, an end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import TypeVar

import tenacity
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from lrf_core import telemetry
from lrf_core.storage.base import DamagedObjectError

T = TypeVar("T")

_logger = logging.getLogger("lrf")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 4.0

# What a server says when it could do the same thing later, or when a body was damaged on its way.
_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)


def with_retries(attempt: Callable[[], T], where: str, patience_s: float) -> T:
    """Call until it returns or fails for good; waits grow from 0.1 s up to 4 s, with full jitter.

    A download with the wrong digest is tried once more: the bytes may have changed on their way.

    Args:
        attempt: may be called any number of times.
        where: the server, for the log.
        patience_s: begins no attempt later than this after the first.

    Raises:
        What the last attempt raised.
    """
    damaged = 0

    def is_worth_another(error: BaseException) -> bool:
        nonlocal damaged
        if isinstance(error, DamagedObjectError):
            damaged += 1
            return damaged == 1
        return is_transient(error)

    def say(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        telemetry.count_retry(error)
        _logger.info(
            "%s: %s; try %d follows in %.1f s",
            where,
            cause_of(error),
            state.attempt_number + 1,
            state.next_action.sleep if state.next_action else 0.0,
        )

    return tenacity.Retrying(
        stop=tenacity.stop_before_delay(patience_s),
        wait=tenacity.wait_random_exponential(_FIRST_WAIT_S, _LONGEST_WAIT_S),
        retry=tenacity.retry_if_exception(is_worth_another),
        before_sleep=say,
        reraise=True,
    )(attempt)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well succeed later."""
    if isinstance(error, NameResolutionError):
        return False
    if isinstance(error, SSLError):
        return any(isinstance(cause, ssl.SSLEOFError) for cause in error.args)
    if isinstance(error, S3Error):
        status = getattr(error.response, "status", 0)
        return error.code in _TRANSIENT or status in _TRANSIENT_STATUS
    if isinstance(error, ServerError):
        return error.status_code in _TRANSIENT_STATUS
    if isinstance(error, InvalidResponseError):
        return error._code in _TRANSIENT_STATUS
    return isinstance(error, HTTPError)


def is_unreachable(error: BaseException) -> bool:
    """Whether there was no connection at all, so that nothing can have arrived."""
    return isinstance(error, (NewConnectionError, ConnectTimeoutError))


def cause_of(error: BaseException | None) -> str:
    """What went wrong in a few words, none of them the server's: those may repeat a token."""
    if isinstance(error, S3Error):
        return f"the server says {error.code}"
    if isinstance(error, ServerError):
        return f"the server failed with HTTP status {error.status_code}"
    if isinstance(error, InvalidResponseError):
        return f"an answer with HTTP status {error._code} that is not S3's"
    if isinstance(error, DamagedObjectError):
        return "the content came with another digest"
    return type(error).__name__
