"""What KServe's own schema says of an InferenceService."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

SCHEMA_FILE = "serving.kserve.io_inferenceservices.yaml"


@functools.cache
def schema() -> dict[str, Any]:
    """The openAPIV3Schema of v1beta1. Skips where the file is not beside the repository."""
    for parent in Path(__file__).resolve().parents:
        file = parent / "shared" / "schemas" / SCHEMA_FILE
        if file.is_file():
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            found = yaml.load(file.read_text(), Loader=loader)  # noqa: S506 both are safe
            (version,) = (v for v in found["spec"]["versions"] if v["name"] == "v1beta1")
            return dict(version["schema"]["openAPIV3Schema"])
    pytest.skip(f"needs {SCHEMA_FILE} in shared/schemas beside the repository")


@functools.cache
def _validator() -> Any:
    from openapi_schema_validator import OAS30Validator

    return OAS30Validator(schema())


def problems(service: dict[str, Any]) -> list[str]:
    """Why the API would not take an object: against the schema, or unknown to it."""
    found = [
        f"{'.'.join(map(str, e.path))}: {e.message}" for e in _validator().iter_errors(service)
    ]
    return found + [f"unknown field {path}" for path in _unknown(schema(), service, "")]


def _unknown(below: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _unknown(below.get("items", {}), item, f"{path}[]")
    if not isinstance(value, dict) or below.get("x-kubernetes-preserve-unknown-fields"):
        return
    named, others = below.get("properties", {}), below.get("additionalProperties")
    for key, item in value.items():
        if path == "" and key in ("metadata", "apiVersion", "kind"):
            continue
        if key in named:
            yield from _unknown(named[key], item, f"{path}.{key}")
        elif isinstance(others, dict):
            yield from _unknown(others, item, f"{path}.{key}")
        elif named:
            yield f"{path}.{key}"
