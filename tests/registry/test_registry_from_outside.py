"""A kind of registry that a user registers is opened like those of the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from lrf_core.artifacts import Release
from lrf_core.registry import (
    Registration,
    RegistryError,
    RegistryKind,
    kinds,
    open_registry,
    open_requests,
    register_kind,
)
from lrf_core.registry.requests import CompressionRequest


@dataclass
class Ours:
    """Keeps everything in memory."""

    own_schemes: ClassVar[tuple[str, ...]] = ()
    address: str = ""
    reports: dict[str, dict[str, str | float]] = field(default_factory=dict)

    def check(self) -> None:
        pass

    def register(self, release: Release, number: int, *, run_id: str | None = None) -> Registration:
        return Registration("ours", release.name, release.version, number, "1", release.location)

    def set_alias(self, release: Release, number: int, alias: str) -> None:
        pass

    def find(self, name: str, version: str) -> Registration | None:
        return None

    def requests(self) -> list[CompressionRequest]:
        return [CompressionRequest("1", "net", "s3://models/net.keras", "default", None)]

    def fetch(self, model: str, folder: Path) -> None:
        raise RegistryError(model)

    def report(self, version: str, facts: Mapping[str, str | float]) -> None:
        self.reports[version] = dict(facts)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_kinds", dict(kinds._kinds))
    register_kind("ours", RegistryKind(lambda address, store: Ours(address), Ours))
    register_kind("silent", RegistryKind(lambda address, store: Ours(address)))


def test_it_is_opened_at_its_address() -> None:
    opened = open_registry("ours+https://host:8080/")

    assert isinstance(opened, Ours)
    assert opened.address == "https://host:8080"


def test_its_versions_request_compression() -> None:
    from pipelines.controller.sources import RegisteredSource

    source = RegisteredSource.open("ours+https://host")

    assert [asked.model for asked in source.incoming()] == ["s3://models/net.keras"]
    with pytest.raises(RegistryError, match="no versions that could request compression"):
        open_requests("silent+https://host")


def test_messages_name_it_and_a_name_is_taken_once() -> None:
    with pytest.raises(RegistryError, match=r"use bucket or kubeflow.* or ours\+https"):
        open_registry("theirs+https://host")
    with pytest.raises(ValueError, match="another kind already"):
        register_kind("mlflow", RegistryKind(lambda address, store: Ours(address)))
