"""Tables of measured latencies: one JSON file, written on the device that is to serve."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from lrf_core.artifacts import Artifact, Record
from lrf_core.latency.geometry import TimedGeometry
from lrf_core.latency.ranks import Knots, edge_ranks, interpolated
from lrf_core.methods.base import Ranks

_CPU_FACTS = Path("/proc/cpuinfo")


class Machine(Record):
    """What a table was measured on."""

    processor: str
    architecture: str
    system: str
    cores: int

    def described(self) -> str:
        """For people."""
        return f"{self.processor} ({self.architecture}, {self.cores} cores, {self.system})"


def this_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(
        processor=_processor(),
        architecture=platform.machine(),
        system=platform.system(),
        cores=len(os.sched_getaffinity(0)),
    )


def this_runtime() -> str:
    """The LiteRT that runs here, with its version."""
    return f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


class Point(Record):
    """One measurement: milliseconds of one sample, median and 95th percentile of `repeats` runs.

    Time of the one thread on the processor: what the sample takes if nothing else runs.
    """

    median_ms: float
    p95_ms: float
    repeats: int


class RanksPoint(Point):
    """The latency of a chain of these ranks."""

    ranks: tuple[int, ...]


class Box(Record):
    """Measurements of chains that have the same layers, on the edges of a box of ranks.

    Attributes:
        knots: the ranks measured in each mode, see `latency.ranks`.
        points: in no order; some are missing while the profile is not finished.
    """

    knots: Knots
    points: tuple[RanksPoint, ...]

    @cached_property
    def medians_ms(self) -> dict[Ranks, float]:
        return {point.ranks: point.median_ms for point in self.points}

    def is_complete(self) -> bool:
        return all(ranks in self.medians_ms for ranks in edge_ranks(self.knots))


class FormLatency(Record):
    """One form of one method for one geometry.

    Attributes:
        reason: why LiteRT cannot run its chains; empty if it can.
    """

    method: str
    form: str
    full_ranks: tuple[int, ...]
    boxes: tuple[Box, ...]
    reason: str = ""

    def latency_ms(self, ranks: Ranks) -> float | None:
        """Interpolated between measured ranks; None if LiteRT cannot run the chain.

        None also where no chain with the same layers was measured: at a full rank, where a layer
        is left out, chains of other ranks say nothing.
        """
        if self.reason:
            return None
        full = is_full(ranks, self.full_ranks)
        for box in self.boxes:
            if is_full(tuple(knots[-1] for knots in box.knots), self.full_ranks) == full:
                return interpolated(box.knots, box.medians_ms, ranks)
        return None

    def is_finished(self) -> bool:
        return bool(self.reason) or all(box.is_complete() for box in self.boxes)


def is_full(ranks: Ranks, full: Ranks) -> tuple[bool, ...]:
    """In which modes ranks are full: what decides which layers a chain has."""
    return tuple(rank == limit for rank, limit in zip(ranks, full, strict=True))


class GeometryLatency(Record):
    """All that was measured of one geometry.

    Attributes:
        layers: names of layers of this geometry, for people.
        methods: those that were profiled, also where they do not apply.
        own: the layer as it is; None if LiteRT cannot run it.
        reason: why it cannot; empty if it can, or where the profile is not finished.
    """

    geometry: TimedGeometry
    layers: tuple[str, ...]
    methods: tuple[str, ...]
    own: Point | None
    forms: tuple[FormLatency, ...]
    reason: str = ""

    def form(self, method: str, name: str) -> FormLatency | None:
        """The form of this method and name, if it was profiled."""
        found = (each for each in self.forms if (each.method, each.form) == (method, name))
        return next(found, None)

    def is_finished(self) -> bool:
        known = self.own is not None or bool(self.reason)
        return known and all(form.is_finished() for form in self.forms)


class LatencyTable(Artifact):
    """Latencies of layers and chains by geometry, as `lrf profile` measures them.

    Attributes:
        runtime: name and version.
        threads: that LiteRT ran on.
    """

    file_name: ClassVar[str] = "latency.json"
    machine: Machine
    runtime: str
    threads: int = 1
    geometries: tuple[GeometryLatency, ...]

    @property
    def by_geometry(self) -> dict[TimedGeometry, GeometryLatency]:
        return {each.geometry: each for each in self.geometries}

    def replacing(self, entries: Iterable[GeometryLatency]) -> LatencyTable:
        """With entries added, or put in the place of those of the same geometry."""
        merged = {**self.by_geometry, **{entry.geometry: entry for entry in entries}}
        return self.model_copy(update={"geometries": tuple(merged.values())})


def _processor() -> str:
    """The model name; Python knows it on few systems."""
    if _CPU_FACTS.is_file():
        for line in _CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.processor() or "unknown"
