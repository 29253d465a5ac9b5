"""Measured latencies of layers and of the chains that may replace them."""

from lrf_core.latency.geometry import TimedGeometry, timed_geometries
from lrf_core.latency.join import (
    latency_table,
    layer_latencies,
    measured_first,
    with_latencies,
    with_latency,
)
from lrf_core.latency.profile import profile
from lrf_core.latency.table import LatencyTable

__all__ = [
    "LatencyTable",
    "TimedGeometry",
    "latency_table",
    "layer_latencies",
    "measured_first",
    "profile",
    "timed_geometries",
    "with_latencies",
    "with_latency",
]
