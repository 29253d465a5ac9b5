"""What every option of a layer spends, as columns: the ground that all policies choose on.

A new quantity that plans can be limited by is one entry of `QUANTITIES` and its settings in `Goal`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from lrf_core.artifacts import Analysis, Candidate, Choice, Cost, DesignSpace, LayerRecord
from lrf_core.errors import ArtifactError, GoalError

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """An explored layer as it is. `latency_ms` is None if it was not measured."""

    name: str
    cost: Cost
    itemsize: int = 4
    latency_ms: float | None = None


@dataclass(frozen=True)
class Quantity:
    """Something that the options of a layer spend, and that adds up over the layers.

    Attributes:
        title: what it is called in tables.
        of_layer: what a layer spends as it is; None if that is not known.
        of_candidate: what a candidate spends in place of its layer, in `unit_of` its layer; None
            where that is not known. (Design spaces are large: `attrgetter` is fast.)
        ceiling: the goal's setting that limits the total; "" if there is none.
        reduction: the goal's setting for the share to remove; "" if there is none.
        whole: whether amounts are whole numbers.
        unit_of: what one of a candidate's units is, by its layer.
    """

    title: str
    of_layer: Callable[[Layer], float | None]
    of_candidate: Callable[[Candidate], float | None]
    ceiling: str = ""
    reduction: str = ""
    whole: bool = False
    unit_of: Callable[[Layer], float] = lambda layer: 1.0


_params, _macs = attrgetter("cost.params"), attrgetter("cost.macs")

QUANTITIES: Mapping[str, Quantity] = {
    "params": Quantity(
        "parameters", _params, _params, "max_params", "params_reduction", whole=True
    ),
    "macs": Quantity("MACs", _macs, _macs, "max_macs", "macs_reduction", whole=True),
    "bytes": Quantity(
        "weight bytes",
        lambda layer: layer.cost.params * layer.itemsize,
        _params,
        "max_weight_bytes",
        "bytes_reduction",
        whole=True,
        unit_of=attrgetter("itemsize"),
    ),
    "latency": Quantity(
        "latency, ms",
        attrgetter("latency_ms"),
        attrgetter("latency_ms"),
        "max_latency_ms",
        "latency_reduction",
    ),
    "sensitivity": Quantity(
        "predicted loss", lambda layer: 0.0, attrgetter("sensitivity"), "max_predicted_loss"
    ),
    "error": Quantity("summed error", lambda layer: 0.0, attrgetter("error")),
}


@dataclass(frozen=True)
class OptionTable:
    """What may happen to each layer, one option a row: it stays, or becomes a candidate.

    Rows of a layer lie together, in an order that does not depend on the order in which the
    candidates were given: staying first, then by loss, cost, method and ranks. Policies break ties
    by it.

    Attributes:
        candidates: of each row; None if the layer stays.
        owner: index of each row's layer, ascending, `(rows,)`.
        amounts: quantity to what each row spends of it, `(rows,)`; NaN where that is not known.
        fixed_cost: quantity to what the model spends outside these layers.
    """

    layers: tuple[Layer, ...]
    candidates: tuple[Candidate | None, ...]
    owner: Indices
    amounts: Mapping[str, Vector]
    fixed_cost: Mapping[str, float]

    def known(self) -> tuple[str, ...]:
        """The quantities that are known of every option."""
        return tuple(name for name in QUANTITIES if not np.isnan(self.amounts[name]).any())

    def amounts_of(self, names: Sequence[str]) -> Vector:
        """`(quantities, rows)`. Raises GoalError where one is not known of every row."""
        for name in names:
            if np.isnan(self.amounts[name]).any():
                raise GoalError(_unknown(name))
        return np.array([self.amounts[name] for name in names]).reshape(-1, len(self.owner))

    def unchanged(self) -> Indices:
        """The row of each layer as it is."""
        return np.searchsorted(self.owner, np.arange(len(self.layers)))

    def totals(self, rows: Indices) -> dict[str, float]:
        """What the whole model spends with these rows, of every quantity that is known."""
        return {name: self.total(name, rows) for name in self.known()}

    def total(self, name: str, rows: Indices) -> float:
        """What the whole model spends of one quantity."""
        return float(self.amounts[name][rows].sum()) + self.fixed_cost[name]

    def before(self, name: str) -> float:
        """What the whole model spends of one quantity as it is."""
        return self.total(name, self.unchanged())

    def choices(self, rows: Indices) -> tuple[Choice, ...]:
        """One choice per layer."""
        return tuple(
            Choice(layer=layer.name, before=layer.cost, candidate=self.candidates[row])
            for layer, row in zip(self.layers, rows, strict=True)
        )

    def where(self, kept: NDArray[np.bool_]) -> OptionTable:
        """Only some of the rows."""
        return OptionTable(
            self.layers,
            tuple(c for c, keep in zip(self.candidates, kept, strict=True) if keep),
            self.owner[kept],
            {name: values[kept] for name, values in self.amounts.items()},
            self.fixed_cost,
        )


def layers_of(
    records: Iterable[LayerRecord], latency_ms: Mapping[str, float] | None = None
) -> tuple[Layer, ...]:
    """The explored layers, from their inventory and the latencies measured of them."""
    measured = latency_ms or {}
    return tuple(Layer(r.name, r.cost, r.itemsize, measured.get(r.name)) for r in records)


def options_of(
    candidates: Iterable[Candidate],
    layers: Sequence[Layer],
    total: Cost,
    weight_bytes: int | None = None,
) -> OptionTable:
    """Every option of every layer; a layer without candidates has none but to stay.

    Args:
        total: cost of the whole model before, with the layers that were not explored.
        weight_bytes: of the whole model before; None counts what was not explored as float32.
    """
    place = {layer.name: index for index, layer in enumerate(layers)}
    ordered = sorted(candidates, key=attrgetter("method", "form", "ranks"))
    owners = [place[candidate.layer] for candidate in ordered]
    owner = np.concatenate([np.arange(len(layers)), np.array(owners, dtype=np.int64)])
    amounts = {
        name: _column(quantity, layers, ordered, owner) for name, quantity in QUANTITIES.items()
    }
    stays = np.arange(len(owner)) < len(layers)
    ties = ("macs", "params", "error", "sensitivity")
    order = np.lexsort((*(amounts[name] for name in ties), ~stays, owner))
    every = (*(None for _ in layers), *ordered)
    explored = Cost(
        params=sum(layer.cost.params for layer in layers),
        macs=sum(layer.cost.macs for layer in layers),
    )
    others = total.params - explored.params
    rest = {
        "params": float(others),
        "macs": float(total.macs - explored.macs),
        "bytes": float(
            4 * others
            if weight_bytes is None
            else weight_bytes - sum(layer.cost.params * layer.itemsize for layer in layers)
        ),
    }
    return OptionTable(
        tuple(layers),
        tuple(every[row] for row in order),
        owner[order],
        {name: values[order] for name, values in amounts.items()},
        {name: rest.get(name, 0.0) for name in QUANTITIES},
    )


def options_of_run(space: DesignSpace, analysis: Analysis) -> OptionTable:
    """Every option of a whole design space, with what the analysis tells of the model.

    Raises:
        ArtifactError: they are not of one model.
    """
    if space.model_digest != analysis.model_digest:
        raise ArtifactError(
            f"the design space is of model {space.model_digest[:12]}, the analysis of "
            f"{analysis.model_digest[:12]}; analyze and explore one model"
        )
    explored = set(space.layers)
    layers = layers_of((r for r in analysis.layers if r.name in explored), space.latency_ms)
    missing = explored - {layer.name for layer in layers}
    if missing:
        raise ArtifactError(
            f"the analysis has no layer '{min(missing)}' that the design space is of; analyze and "
            "explore one model"
        )
    baseline = analysis.baseline
    return options_of(space.candidates, layers, baseline.cost, baseline.weight_bytes)


def undominated(amounts: Vector, owner: Indices) -> Indices:
    """The rows that no other row of the same layer equals or beats in every quantity, ascending.

    Of rows that are equal in every quantity the first is kept.

    Args:
        amounts: `(quantities, rows)`.
        owner: the layer of each row, ascending.
    """
    borders = np.flatnonzero(np.diff(owner, prepend=-1, append=-2))
    kept = [start + _front(amounts[:, start:end]) for start, end in itertools.pairwise(borders)]
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def _front(amounts: Vector) -> Indices:
    """The Pareto front of `(quantities, rows)`.

    Rows are taken in an order in which none is beaten by a later one, so the first of what is left
    is on the front, and what it beats can go at once.
    """
    if len(amounts) == 2:  # the usual case, without the loop
        order = np.lexsort(amounts[::-1])
        second = amounts[1, order]
        least = np.minimum.accumulate(second)
        return np.asarray(order[np.append(True, second[1:] < least[:-1])])
    # By the sum of all quantities, where the first beat most: what is left soon is little.
    units = np.maximum(np.abs(amounts).max(axis=1, keepdims=True), 1e-300)
    order = np.lexsort((*amounts[::-1], (amounts / units).sum(axis=0)))
    ordered = np.ascontiguousarray(amounts[:, order])
    front = []
    left = np.arange(len(order))
    while len(left):
        front.append(left[0])
        values = ordered[:, left]
        left = left[(values < values[:, :1]).any(axis=0)]
    return np.asarray(order[np.array(front)])


def _column(
    quantity: Quantity, layers: Sequence[Layer], candidates: Sequence[Candidate], owner: Indices
) -> Vector:
    """What layers, then candidates, spend; NaN where that is not known."""
    units = np.array([quantity.unit_of(layer) for layer in layers], dtype=np.float64)
    spent = np.array(list(map(quantity.of_candidate, candidates)), dtype=np.float64)
    as_they_are = np.array([quantity.of_layer(layer) for layer in layers], dtype=np.float64)
    return np.concatenate([as_they_are, spent * units[owner[len(layers) :]]])


def _unknown(name: str) -> str:
    if name == "latency":
        return (
            "the goal is about latency, but the design space has no latency of some layers or "
            "candidates; measure it with explore.latency, or give explore a table that "
            "`lrf profile` wrote on the device"
        )
    return f"the design space does not tell the {QUANTITIES[name].title} of every candidate"
