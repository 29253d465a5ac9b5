"""What is to be measured of one geometry, and how it is entered in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import keras

from lrf_core import methods
from lrf_core.latency.geometry import TimedGeometry
from lrf_core.latency.measure import Outcome
from lrf_core.latency.ranks import Knots, box_knots, edge_ranks
from lrf_core.latency.table import (
    Box,
    FormLatency,
    GeometryLatency,
    Point,
    RanksPoint,
    is_full,
)
from lrf_core.methods import Layout
from lrf_core.methods.base import Ranks
from lrf_core.models.rebuild import copy_of

# Method, layout and ranks; empty for the layer as it is.
Key = tuple[str, str, Ranks]
OWN: Key = ("", "", ())


@dataclass(frozen=True)
class MeasurementPlan:
    """What is to be measured of one geometry.

    Attributes:
        layers: names of the layers of this geometry.
        method_names: those that are profiled.
        layouts: each that has smaller candidates than the layer, with its boxes of ranks.
    """

    geometry: TimedGeometry
    layers: tuple[str, ...]
    method_names: tuple[str, ...]
    layouts: tuple[tuple[Layout, tuple[Knots, ...]], ...]

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Everything to measure, the layer as it is first."""
        chains = [
            (layout.method, layout.name, ranks)
            for layout, boxes in self.layouts
            for knots in boxes
            for ranks in edge_ranks(knots)
        ]
        return (OWN, *dict.fromkeys(chains))

    def maker(self, layer: keras.Layer, key: Key) -> Callable[[], Sequence[keras.Layer]]:
        """Makes the layers, unbuilt, that a key stands for.

        Args:
            layer: one of this geometry.
        """
        if key == OWN:
            return lambda: [copy_of(layer)]
        method, name, ranks = key
        layout = methods.get(method).layout(self.geometry.geometry(), name)
        return lambda: layout.chain(layer, ranks)

    def known(self, entry: GeometryLatency | None) -> dict[Key, Outcome]:
        """What a table says already of what is to be measured."""
        if entry is None:
            return {}
        found: dict[Key, Outcome] = {}
        if entry.own or entry.reason:
            found[OWN] = entry.own or entry.reason
        for form in entry.forms:
            for point in (point for box in form.boxes for point in box.points):
                found[form.method, form.form, point.ranks] = point
        refused = {(form.method, form.form): form.reason for form in entry.forms if form.reason}
        found |= {key: refused[key[:2]] for key in self.keys if key[:2] in refused}
        return found

    def missing(self, entry: GeometryLatency | None) -> list[Key]:
        """What a table does not say yet."""
        known = self.known(entry)
        return [key for key in self.keys if key not in known]

    def entry(
        self, outcomes: Mapping[Key, Outcome], before: GeometryLatency | None
    ) -> GeometryLatency:
        """What is known of this geometry after some or all of the outcomes.

        Args:
            before: the entry so far; its forms of other methods stay.
        """
        own = outcomes.get(OWN)
        forms = {
            (layout.method, layout.name): _form_latency(layout, boxes, outcomes)
            for layout, boxes in self.layouts
        }
        earlier = {(form.method, form.form): form for form in (before.forms if before else ())}
        layers = (*(before.layers if before else ()), *self.layers)
        names = (*(before.methods if before else ()), *self.method_names)
        return GeometryLatency(
            geometry=self.geometry,
            layers=tuple(dict.fromkeys(layers)),
            methods=tuple(dict.fromkeys(names)),
            own=own if isinstance(own, Point) else None,
            reason=own if isinstance(own, str) else "",
            forms=tuple({**earlier, **forms}.values()),
        )


def make_plan(
    geometry: TimedGeometry,
    layers: Sequence[str],
    method_names: Sequence[str],
    *,
    per_mode: int,
    points: int,
) -> MeasurementPlan:
    """Plan the measurements of the layers of one geometry.

    Args:
        per_mode: ranks per mode among which candidates will be.
        points: ranks measured in each mode, at most.
    """
    found = geometry.geometry()
    layouts = [layout for name in method_names for layout in methods.get(name).layouts(found)]
    boxes = [(layout, _boxes(layout, per_mode, points)) for layout in layouts]
    return MeasurementPlan(
        geometry,
        layers=tuple(layers),
        method_names=tuple(method_names),
        layouts=tuple((layout, knots) for layout, knots in boxes if knots),
    )


def _boxes(layout: Layout, per_mode: int, points: int) -> tuple[Knots, ...]:
    """Around the candidates smaller than the layer, those with the same layers in one box."""
    together: dict[tuple[bool, ...], list[Ranks]] = {}
    for ranks in layout.candidate_ranks(per_mode):
        if layout.cost(ranks).params < layout.geometry.cost.params:
            together.setdefault(is_full(ranks, layout.full_ranks), []).append(ranks)
    return tuple(box_knots(offered, points) for offered in together.values())


def _form_latency(
    layout: Layout, boxes: Sequence[Knots], outcomes: Mapping[Key, Outcome]
) -> FormLatency:
    found = {ranks: out for (*name, ranks), out in outcomes.items() if name == _name(layout)}
    reasons = [outcome for outcome in found.values() if isinstance(outcome, str)]
    return FormLatency(
        method=layout.method,
        form=layout.name,
        full_ranks=layout.full_ranks,
        boxes=tuple(
            Box(
                knots=knots,
                points=tuple(
                    _with_ranks(point, ranks)
                    for ranks in edge_ranks(knots)
                    if isinstance(point := found.get(ranks), Point)
                ),
            )
            for knots in boxes
        ),
        reason=reasons[0] if reasons else "",
    )


def _name(layout: Layout) -> list[str]:
    return [layout.method, layout.name]


def _with_ranks(point: Point, ranks: Ranks) -> RanksPoint:
    return RanksPoint(
        ranks=ranks, median_ms=point.median_ms, p95_ms=point.p95_ms, repeats=point.repeats
    )
