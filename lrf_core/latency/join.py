"""Latencies of a table beside the candidates of a design space."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras

from lrf_core import methods
from lrf_core.artifacts import Candidate, DesignSpace, LayerRecord
from lrf_core.errors import ArtifactError
from lrf_core.latency.geometry import TimedGeometry, timed_geometries
from lrf_core.latency.profile import profile
from lrf_core.latency.table import LatencyTable
from lrf_core.spec import ExploreSpec

_logger = logging.getLogger("lrf")

# `explore.latency` in the spec, in place of a file: measure here.
MEASURE = "measure"
# Names told in a message, at most.
_TOLD = 3


def latency_table(
    settings: ExploreSpec,
    model: keras.Model,
    records: Sequence[LayerRecord],
    layers: Mapping[str, keras.Layer],
) -> LatencyTable | None:
    """The table that `explore.latency` names or asks to measure; None if it is not set.

    Raises:
        ArtifactError: no such table, a damaged one, or one without some of these layers or methods.
    """
    if settings.latency is None:
        return None
    if settings.latency == MEASURE:
        return profile(
            model,
            records,
            method_names=methods.chosen(settings.methods),
            per_mode=settings.ranks_per_mode,
        )
    table = LatencyTable.load(settings.latency)
    check_covers(
        table, timed_geometries(records, layers), methods.chosen(settings.methods), settings.latency
    )
    return table


def measured_first(
    settings: ExploreSpec, model: keras.Model, records: Sequence[LayerRecord], file: Path
) -> ExploreSpec:
    """Settings whose `latency` is a file; where they say "measure" it is measured now.

    An exploration that is asked to measure does so, but starts again when it was interrupted; a
    file goes on.
    """
    if settings.latency != MEASURE:
        return settings
    profile(
        model,
        records,
        method_names=methods.chosen(settings.methods),
        per_mode=settings.ranks_per_mode,
        file=file,
    )
    return settings.model_copy(update={"latency": str(file)})


def check_covers(
    table: LatencyTable,
    geometries: Mapping[str, TimedGeometry],
    method_names: Sequence[str],
    source: str,
) -> None:
    """Raise ArtifactError, naming the first that are missing, unless all layers were measured.

    Args:
        geometries: by layer name, of the layers that will be explored.
        method_names: that will compete.
        source: of the table, for the message.
    """
    known = table.by_geometry
    absent = [name for name, geometry in geometries.items() if geometry not in known]
    if absent:
        raise ArtifactError(
            f"the latency table {source} is of another model: it has no layer like "
            f"{_listed([f'{name} ({geometries[name].described()})' for name in absent])}; "
            "run lrf profile on this model"
        )
    begun = [name for name, geometry in geometries.items() if not known[geometry].is_finished()]
    if begun:
        raise ArtifactError(
            f"the latency table {source} is not finished: {_listed(begun)} not measured yet; run "
            "lrf profile again with this --out, and it goes on"
        )
    entries = [known[geometry] for geometry in geometries.values()]
    without = [name for name in method_names if any(name not in entry.methods for entry in entries)]
    if without:
        raise ArtifactError(
            f"the latency table {source} was measured without {', '.join(without)}; run lrf "
            "profile again with these --methods, or explore others"
        )


def with_latencies(
    space: DesignSpace,
    records: Sequence[LayerRecord],
    layers: Mapping[str, keras.Layer],
    table: LatencyTable | None,
) -> DesignSpace:
    """The design space with a latency for every layer and candidate that the table has one for."""
    if table is None:
        return space
    geometries = timed_geometries(records, layers)
    lineage = space.lineage.model_copy(
        update={"inputs": {**space.lineage.inputs, "latency": table.digest()}}
    )
    return space.model_copy(
        update={
            "lineage": lineage,
            "latency_ms": layer_latencies(geometries, table),
            "candidates": tuple(with_latency(space.candidates, geometries, table)),
        }
    )


def layer_latencies(
    geometries: Mapping[str, TimedGeometry], table: LatencyTable
) -> dict[str, float]:
    """Milliseconds of each layer as it is, all its calls together, by name.

    Layers that LiteRT cannot run are left out, and named in the log with the reason.
    """
    known = table.by_geometry
    latencies = {}
    for name, geometry in geometries.items():
        entry = known.get(geometry)
        if entry and entry.own:
            latencies[name] = entry.own.median_ms
        else:
            reason = entry.reason if entry else "not in the table"
            _logger.warning("no latency of layer '%s': %s", name, reason)
    return latencies


def with_latency(
    candidates: Iterable[Candidate],
    geometries: Mapping[str, TimedGeometry],
    table: LatencyTable,
) -> list[Candidate]:
    """The candidates with their latency: measured, or between measured ranks of the same form.

    Where the table has none it is None, and the log says so once for each form of a layer.

    Args:
        geometries: by layer name.
    """
    known = table.by_geometry
    forms = {
        (name, form.method, form.form): form
        for name, geometry in geometries.items()
        for form in (known[geometry].forms if geometry in known else ())
    }
    joined = []
    without: Counter[tuple[str, str, str]] = Counter()
    for candidate in candidates:
        form = forms.get((candidate.layer, candidate.method, candidate.form))
        latency = form.latency_ms(candidate.ranks) if form else None
        if latency is None:
            reason = form.reason if form else ""
            without[candidate.layer, candidate.technique, reason or "not in the table"] += 1
        joined.append(candidate.model_copy(update={"latency_ms": latency}))
    for (layer, technique, reason), count in without.items():
        _logger.warning("no latency of %d %s of layer '%s': %s", count, technique, layer, reason)
    return joined


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
