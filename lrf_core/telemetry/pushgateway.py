"""Metrics to a Prometheus Pushgateway, and out of it again: it keeps a group until it is deleted.

References:
    https://github.com/prometheus/pushgateway#api
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import urllib3
from prometheus_client import CollectorRegistry, delete_from_gateway, push_to_gateway

from lrf_core.errors import LrfError
from lrf_core.redaction import one_line, register_pair
from lrf_core.secrets.credentials import password_in

GATEWAY_VARIABLE = "LRF_PUSHGATEWAY"
USER_VARIABLE = "LRF_PUSHGATEWAY_USER"
PASSWORD_VARIABLE = "LRF_PUSHGATEWAY_PASSWORD"  # noqa: S105 the name of it

JOB = "lrf"

_TIMEOUT_S = 5.0

_logger = logging.getLogger("lrf")


class PushgatewayError(LrfError):
    """The pushgateway cannot be reached, or refuses what it is asked."""


def push(registry: CollectorRegistry, grouping: dict[str, str]) -> None:
    """Replace a group by these metrics, where LRF_PUSHGATEWAY names a gateway.

    Whatever goes wrong is one warning: a job does not fail for its metrics, nor wait longer than
    `_TIMEOUT_S` for them.
    """
    failures: list[str] = []

    def send() -> None:
        try:
            gateway = _gateway()
            if gateway:
                push_to_gateway(
                    gateway.url, JOB, registry, grouping, _TIMEOUT_S, handler=gateway.handler
                )
        except LrfError as error:
            failures.append(str(error))
        except Exception as error:  # noqa: BLE001 nothing that happens here may end a job
            failures.append(f"{type(error).__name__}")

    if not os.environ.get(GATEWAY_VARIABLE):
        return
    # In a thread that is left alone when it takes too long: no timeout of a socket covers the
    # resolver, or a server that sends a byte now and then.
    sender = threading.Thread(target=send, name="lrf-push", daemon=True)
    sender.start()
    sender.join(_TIMEOUT_S)
    if sender.is_alive():
        failures = [f"the pushgateway did not answer within {_TIMEOUT_S:g} s"]
    for failure in failures:
        _logger.warning("metrics of this job are lost: %s", failure)


def forget_old(older_than_s: float) -> int:
    """Delete the groups of jobs of lrf that were pushed longer ago; returns how many.

    Two processes may do so at once. Without LRF_PUSHGATEWAY nothing is done.

    Args:
        older_than_s: seconds since the group was last pushed, by this machine's clock.

    Raises:
        PushgatewayError: the gateway cannot be reached or refuses; what was deleted stays so.
        CredentialError: its password cannot be used.
    """
    gateway = _gateway()
    if gateway is None:
        return 0
    oldest, deleted = time.time() - older_than_s, 0
    for grouping, pushed in gateway.groups():
        if pushed < oldest:
            delete_from_gateway(gateway.url, JOB, grouping, _TIMEOUT_S, handler=gateway.handler)
            deleted += 1
    return deleted


@dataclass(frozen=True)
class _Gateway:
    """A gateway, and who we are there."""

    url: str
    headers: dict[str, str] = field(repr=False)

    def handler(
        self,
        url: str,
        method: str,
        timeout: float | None,
        headers: Sequence[tuple[str, str]],
        data: bytes,
    ) -> Callable[[], None]:
        """As prometheus_client wants it; its own would follow a redirect without the password."""

        def send() -> None:
            self._ask(method, url, dict(headers), data)

        return send

    def groups(self) -> Iterator[tuple[dict[str, str], float]]:
        """Grouping key of each group of lrf, without the job, and when it was last pushed."""
        answer = self._ask("GET", f"{self.url}/api/v1/metrics", {}, None)
        try:
            for group in json.loads(answer)["data"]:
                labels = dict(group["labels"])
                if labels.pop("job", None) == JOB:
                    yield labels, float(group["push_time_seconds"]["metrics"][0]["value"])
        except (KeyError, TypeError, ValueError, IndexError):
            raise PushgatewayError(
                f"{self.url} does not answer as a pushgateway does; check {GATEWAY_VARIABLE}"
            ) from None

    def _ask(self, method: str, url: str, headers: dict[str, str], data: bytes | None) -> bytes:
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S) as http:
            try:
                answer = http.request(method, url, body=data, headers={**headers, **self.headers})
            except urllib3.exceptions.HTTPError as error:
                raise PushgatewayError(
                    f"the pushgateway at {self.url} cannot be reached: {type(error).__name__}; "
                    f"check {GATEWAY_VARIABLE}"
                ) from None
        if answer.status >= 300:
            raise PushgatewayError(
                f"the pushgateway at {self.url} answers with HTTP {answer.status}; check "
                f"{GATEWAY_VARIABLE}, {USER_VARIABLE} and {PASSWORD_VARIABLE}, and its log"
            )
        return bytes(answer.data)


def _gateway() -> _Gateway | None:
    """The one that the environment names. Raises PushgatewayError for an address of no use."""
    url = os.environ.get(GATEWAY_VARIABLE, "").rstrip("/")
    if not url:
        return None
    parts = urlsplit(url)
    if "@" in parts.netloc:  # not shown: it holds a password
        raise PushgatewayError(
            f"{GATEWAY_VARIABLE} holds a user name; give it in {USER_VARIABLE}, the password in "
            f"{PASSWORD_VARIABLE}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PushgatewayError(
            f"{GATEWAY_VARIABLE} is {one_line(url, 100)!r}; write http://host:9091 or https://..."
        )
    user = os.environ.get(USER_VARIABLE)
    credentials: dict[str, Any] = {}
    if user:
        user, password = user.strip("\r\n"), password_in(PASSWORD_VARIABLE) or ""
        register_pair(user, password)
        credentials = urllib3.make_headers(basic_auth=f"{user}:{password}")
    return _Gateway(url, credentials)
