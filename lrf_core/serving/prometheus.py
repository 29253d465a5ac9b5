"""A PromQL query as a condition for going on.

References:
    https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

from __future__ import annotations

import json
import math
import string
from dataclasses import dataclass
from typing import Any

import tenacity
import urllib3

from lrf_core.errors import LrfError
from lrf_core.redaction import one_line
from lrf_core.secrets.credentials import token_in
from lrf_core.spec.promote import PrometheusSpec

# A bearer token, where Prometheus asks for one.
TOKEN_VARIABLE = "LRF_PROMETHEUS_TOKEN"  # noqa: S105 the name of it

_TIMEOUT_S = 10.0
_ATTEMPTS = 3


class QueryError(LrfError):
    """Prometheus cannot be asked, or its answer is out of the limits."""


@dataclass(frozen=True)
class Metric:
    """A query with its limits, for one service.

    Attributes:
        settings: as the spec has them.
        names: what stands for $namespace, $service and $revision.
        retry_s: longest pause between two attempts, seconds.
    """

    settings: PrometheusSpec
    names: dict[str, str]
    retry_s: float = 2.0

    def check(self) -> str | None:
        """Ask once; what was found, for a user, or None if there are no values.

        Raises:
            QueryError: Prometheus cannot be reached, refuses the query, or a value is out of the
                limits.
        """
        values = self.values()
        settings = self.settings
        for labels, value in values:
            if settings.max is not None and value > settings.max:
                raise QueryError(f"{value:g}{labels} is above the limit of {settings.max:g}")
            if settings.min is not None and value < settings.min:
                raise QueryError(f"{value:g}{labels} is below the limit of {settings.min:g}")
        return ", ".join(f"{value:g}{labels}" for labels, value in values) or None

    def values(self) -> list[tuple[str, float]]:
        """Labels and value of each series; without those that are NaN.

        Raises:
            QueryError: Prometheus cannot be reached, or refuses the query.
        """
        query = string.Template(self.settings.query).safe_substitute(self.names)
        answer = self._ask(query)
        try:
            if answer["status"] != "success":
                said = f"{answer.get('errorType', 'error')}: {answer.get('error', '')}"
                raise QueryError(
                    f"Prometheus at {self.settings.url} refuses the query: {one_line(said)}"
                )
            return _values(answer["data"])
        except (KeyError, TypeError, ValueError, IndexError):
            raise QueryError(
                f"{self.settings.url} does not answer as Prometheus does; check the address"
            ) from None

    def _ask(self, query: str) -> Any:
        token = token_in(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(urllib3.exceptions.HTTPError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self.retry_s),
            reraise=True,
        )
        with urllib3.PoolManager(retries=False, timeout=_TIMEOUT_S) as http:
            try:
                answer = again(
                    http.request,
                    "POST",
                    f"{self.settings.url.rstrip('/')}/api/v1/query",
                    fields={"query": query},
                    encode_multipart=False,
                    headers=headers,
                )
            except urllib3.exceptions.HTTPError as error:
                raise QueryError(
                    f"Prometheus at {self.settings.url} cannot be reached: "
                    f"{type(error).__name__}; check the address"
                ) from None
        try:
            # A refused query (400, 422) carries the reason in the same form.
            return json.loads(answer.data)
        except ValueError:
            raise QueryError(
                f"Prometheus at {self.settings.url} answers with HTTP {answer.status}; check the "
                "address, and the token where it needs one"
            ) from None


def _values(data: Any) -> list[tuple[str, float]]:
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        found = [("", float(result[1]))]
    elif kind == "vector":
        found = [(_labels(series["metric"]), float(series["value"][1])) for series in result]
    else:
        raise QueryError(f"the query gives a {kind}; one that gives a vector or scalar is needed")
    return [(labels, value) for labels, value in found if not math.isnan(value)]


def _labels(metric: dict[str, str]) -> str:
    named = ", ".join(f'{key}="{value}"' for key, value in sorted(metric.items()))
    return f" {{{named}}}" if named else ""
