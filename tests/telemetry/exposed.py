"""What a registry or a server exposes, by name and labels."""

from __future__ import annotations

import urllib3
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

# Name and labels, without those given.
Series = tuple[str, frozenset[tuple[str, str]]]


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


def exposed_by(registry: CollectorRegistry) -> dict[Series, float]:
    return {
        series(sample.name, **sample.labels): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def exposed_at(url: str) -> dict[Series, float]:
    """Of a pushgateway: what was pushed, without the labels that all of it has."""
    with urllib3.PoolManager(retries=False) as http:
        text = http.request("GET", f"{url}/metrics").data.decode()
    found = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("job", "instance")}
            if sample.labels.get("job") == "lrf":
                found[series(sample.name, **labels)] = sample.value
    return found
