"""Prometheus metrics of what a job does; pushed at its end where LRF_PUSHGATEWAY names a gateway.

Arrows point here: any module may count something, this package imports none of them.
"""

from __future__ import annotations

from lrf_core.telemetry.metrics import Metrics
from lrf_core.telemetry.pushgateway import (
    GATEWAY_VARIABLE,
    PASSWORD_VARIABLE,
    USER_VARIABLE,
    PushgatewayError,
    forget_old,
)
from lrf_core.telemetry.recording import (
    RUN_VARIABLE,
    count_cached,
    count_moved,
    count_promotion,
    count_release,
    count_retry,
    count_scored,
    current,
    fresh,
    job,
    record_verdict,
    stage,
)

__all__ = [
    "GATEWAY_VARIABLE",
    "PASSWORD_VARIABLE",
    "RUN_VARIABLE",
    "USER_VARIABLE",
    "Metrics",
    "PushgatewayError",
    "count_cached",
    "count_moved",
    "count_promotion",
    "count_release",
    "count_retry",
    "count_scored",
    "current",
    "forget_old",
    "fresh",
    "job",
    "record_verdict",
    "stage",
]
