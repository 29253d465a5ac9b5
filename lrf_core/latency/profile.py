"""profile: measure the layers of a model, and the chains that may replace them, on this machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import keras

from lrf_core.artifacts import LayerRecord, Lineage
from lrf_core.console.progress import Advance, work
from lrf_core.errors import ArtifactError
from lrf_core.latency.geometry import timed_geometries
from lrf_core.latency.measure import Subject, measured
from lrf_core.latency.plan import MeasurementPlan, make_plan
from lrf_core.latency.table import GeometryLatency, LatencyTable, this_machine, this_runtime
from lrf_core.models.load import model_digest
from lrf_core.models.trace import walk
from lrf_core.models.unroll import to_functional

_logger = logging.getLogger("lrf")

POINTS = 8
REPEATS = 30


def profile(
    model: keras.Model,
    records: Sequence[LayerRecord],
    *,
    method_names: Sequence[str],
    per_mode: int,
    points: int = POINTS,
    repeats: int = REPEATS,
    file: Path | None = None,
) -> LatencyTable:
    """Measure layers as they are, and the chains of every form at a few ranks, in LiteRT.

    Layers of equal geometry are measured once. One thread, one sample of random numbers.

    Args:
        model: the model of these layers.
        records: the eligible layers to measure, as the inventory has them.
        method_names: those whose chains are measured, where they apply.
        per_mode: ranks per mode among which candidates will be; the smallest and the largest are
            measured.
        points: ranks measured in each mode, at most, 2 or more.
        repeats: runs of each, at most.
        file: written after every few measurements. What it holds already, of this or of other
            models, is kept and not measured again.

    Returns:
        The table: what the file held, and this model.

    Raises:
        ArtifactError: the file is damaged, from another machine or LiteRT, or cannot be written.
    """
    model = to_functional(model)
    layers = dict(walk(model))
    lineage = Lineage(
        inputs={"model": model_digest(model)},
        settings={
            "methods": list(method_names),
            "ranks_per_mode": per_mode,
            "points": points,
            "repeats": repeats,
        },
    )
    table = _begun(lineage, file)
    plans = _plans(records, layers, method_names, per_mode=per_mode, points=points)
    table = table.replacing(
        [plan.entry(plan.known(before), before) for plan, before in _with_entries(plans, table)]
    )
    if file:
        table.save(file)  # a file that cannot be written is told before anything is measured
    missing = [len(plan.missing(before)) for plan, before in _with_entries(plans, table)]
    with work("Measuring latencies", sum(missing)) as advance:
        for plan, count in zip(plans, missing, strict=True):
            if count:
                layer = layers[plan.layers[0]]
                table = _measured(plan, layer, table, repeats=repeats, file=file, advance=advance)
    return table


def _plans(
    records: Sequence[LayerRecord],
    layers: dict[str, keras.Layer],
    method_names: Sequence[str],
    *,
    per_mode: int,
    points: int,
) -> list[MeasurementPlan]:
    """One for each geometry, in the order of the model."""
    timed = timed_geometries(records, layers)
    alike = {
        geometry: [name for name, other in timed.items() if other == geometry]
        for geometry in timed.values()
    }
    return [
        make_plan(geometry, names, method_names, per_mode=per_mode, points=points)
        for geometry, names in alike.items()
    ]


def _begun(lineage: Lineage, file: Path | None) -> LatencyTable:
    """The table in the file, or an empty one."""
    new = LatencyTable(
        lineage=lineage, machine=this_machine(), runtime=this_runtime(), geometries=()
    )
    if file is None or not file.exists():
        return new
    table = LatencyTable.load(file)
    for what, old, now in (
        ("on", table.machine.described(), new.machine.described()),
        ("with", table.runtime, new.runtime),
        ("with threads:", table.threads, new.threads),
    ):
        if old != now:
            raise ArtifactError(
                f"{file} was measured {what} {old}, and this is {now}; latencies of both in one "
                "table would not compare. Give another --out, or delete the file"
            )
    _logger.info("%s: what it holds is kept, and not measured again", file)
    return new.replacing(table.geometries)


def _with_entries(
    plans: Sequence[MeasurementPlan], table: LatencyTable
) -> list[tuple[MeasurementPlan, GeometryLatency | None]]:
    known = table.by_geometry
    return [(plan, known.get(plan.geometry)) for plan in plans]


def _measured(
    plan: MeasurementPlan,
    layer: keras.Layer,
    table: LatencyTable,
    *,
    repeats: int,
    file: Path | None,
    advance: Advance,
) -> LatencyTable:
    """The table with what it lacks of one plan; written to the file after every few."""
    before = table.by_geometry.get(plan.geometry)
    outcomes = plan.known(before)
    subjects = [Subject(key, plan.maker(layer, key)) for key in plan.missing(before)]
    for found in measured(subjects, plan.geometry.input_shapes(), repeats):
        outcomes |= found
        table = table.replacing([plan.entry(outcomes, before)])
        if file:
            table.save(file)
        advance(len(found))
    return table
