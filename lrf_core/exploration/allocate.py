"""Choose one candidate per layer: exactly under global budgets, or by the paper's threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from lrf_core.artifacts import Candidate, Choice, Cost
from lrf_core.errors import GoalError

# What a choice minimises: the sum of this over the layers.
Loss = Callable[[Candidate], float]


def sensitivity(candidate: Candidate) -> float:
    """Predicted increase of the loss, as the model stands."""
    return candidate.sensitivity


def error(candidate: Candidate) -> float:
    """Relative error of the layer's output."""
    return candidate.error


@dataclass(frozen=True)
class Budget:
    """What the whole model may cost at most; None where it does not matter."""

    params: float | None = None
    macs: float | None = None


@dataclass(frozen=True)
class LayerOptions:
    """What may happen to one layer: stay as it is, or become one of the candidates."""

    layer: str
    before: Cost
    candidates: tuple[Candidate, ...]


def options_by_layer(
    candidates: Iterable[Candidate], before: Mapping[str, Cost], loss: Loss = sensitivity
) -> list[LayerOptions]:
    """Group candidates; layers without any stay in the list with no option but to stay.

    Args:
        loss: what will be minimised; candidates that others beat by it are dropped.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.layer)
    grouped = {layer: tuple(group) for layer, group in groupby(ordered, lambda c: c.layer)}
    return [
        LayerOptions(layer, cost, _undominated(grouped.get(layer, ()), loss))
        for layer, cost in before.items()
    ]


def _undominated(candidates: Sequence[Candidate], loss: Loss) -> tuple[Candidate, ...]:
    """Drop what another candidate beats or equals in parameters, MACs and loss."""
    kept: list[Candidate] = []
    ordered = sorted(candidates, key=lambda c: (c.cost.params, c.cost.macs, loss(c), c.ranks))
    for candidate in ordered:
        beaten = any(
            other.cost.macs <= candidate.cost.macs and loss(other) <= loss(candidate)
            for other in kept
        )
        if not beaten:
            kept.append(candidate)
    return tuple(kept)


def knapsack(
    options: Sequence[LayerOptions], total: Cost, budget: Budget, loss: Loss = sensitivity
) -> tuple[Choice, ...]:
    """The choice with the least summed loss within the budget, exactly (HiGHS).

    A multiple-choice knapsack, solved as a mixed-integer linear program.

    Args:
        total: cost of the whole model before, with the layers that have no options.

    Raises:
        GoalError: no choice fits the budget.
    """
    choices = [
        Choice(layer=option.layer, before=option.before, candidate=candidate)
        for option in options
        for candidate in (None, *option.candidates)
    ]
    owner = np.repeat(np.arange(len(options)), [1 + len(option.candidates) for option in options])
    losses = np.array([loss(c.candidate) if c.candidate else 0.0 for c in choices])
    saved = {
        "params": _numbers(choice.before.params - choice.after().params for choice in choices),
        "macs": _numbers(choice.before.macs - choice.after().macs for choice in choices),
    }
    wholes = {"params": (total.params, budget.params), "macs": (total.macs, budget.macs)}
    constraints = [LinearConstraint(_one_per_layer(owner, len(options)), 1, 1)]
    for name, (whole, limit) in wholes.items():
        if limit is None:
            continue
        needed = whole - limit
        _check_reachable(name, owner, saved[name], whole, needed)
        # In units of the whole, so that the solver's tolerances mean the same for any model.
        constraints.append(LinearConstraint(saved[name][None, :] / whole, needed / whole, np.inf))
    solution = milp(
        losses / max(float(losses.max(initial=0.0)), 1e-300),
        constraints=constraints,
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-4, "time_limit": 30.0},
    )
    if solution.x is None:
        raise GoalError(
            "no plan meets both the params and the macs goal at once; lower one of them"
        )
    return tuple(choices[index] for index in np.flatnonzero(solution.x > 0.5))


def threshold(options: Sequence[LayerOptions], similarity: float) -> tuple[Choice, ...]:
    """The policy of arXiv 2510.00062: per layer, the candidate with the fewest parameters whose
    similarity reaches the threshold; a layer where none does stays as it is."""
    choices = []
    for option in options:
        near = [c for c in option.candidates if c.similarity >= similarity]
        best = min(near, key=lambda c: (c.cost.params, -c.similarity), default=None)
        choices.append(Choice(layer=option.layer, before=option.before, candidate=best))
    return tuple(choices)


def threshold_for_budget(
    options: Sequence[LayerOptions], total: Cost, budget: Budget
) -> tuple[Choice, ...]:
    """The highest similarity threshold whose choice fits the budget.

    Raises:
        GoalError: not even the lowest threshold fits.
    """
    levels = sorted({c.similarity for option in options for c in option.candidates})
    low, high = 0, len(levels) - 1
    best: tuple[Choice, ...] | None = None
    while low <= high:
        middle = (low + high) // 2
        choices = threshold(options, levels[middle])
        after = total_after(choices, total)
        if _fits(after, budget):
            best, low = choices, middle + 1
        else:
            high = middle - 1
    if best is None:
        smallest = total_after(threshold(options, 0.0), total)
        raise GoalError(
            "no similarity threshold meets the goal: the smallest plan has "
            f"{_shares(smallest, total)}; lower the goal or use the knapsack policy"
        )
    return best


def total_after(choices: Iterable[Choice], total: Cost) -> Cost:
    """Cost of the whole model with these choices."""
    params, macs = total.params, total.macs
    for choice in choices:
        after = choice.after()
        params += after.params - choice.before.params
        macs += after.macs - choice.before.macs
    return Cost(params=params, macs=macs)


def predicted_loss(choices: Iterable[Choice]) -> float:
    """Summed sensitivity of the choices."""
    return sum(choice.candidate.sensitivity for choice in choices if choice.candidate)


def _fits(cost: Cost, budget: Budget) -> bool:
    return (budget.params is None or cost.params <= budget.params) and (
        budget.macs is None or cost.macs <= budget.macs
    )


def _shares(cost: Cost, total: Cost) -> str:
    return (
        f"{1 - cost.params / total.params:.1%} fewer parameters and "
        f"{1 - cost.macs / max(total.macs, 1):.1%} fewer multiply-adds"
    )


def _numbers(values: Iterable[int]) -> NDArray[np.float64]:
    return np.fromiter(values, np.float64)


def _one_per_layer(owner: NDArray[np.int64], layers: int) -> scipy.sparse.csr_matrix:
    count = len(owner)
    return scipy.sparse.csr_matrix((np.ones(count), (owner, np.arange(count))), (layers, count))


def _check_reachable(
    name: str, owner: NDArray[np.int64], saved: NDArray[np.float64], whole: float, needed: float
) -> None:
    most = sum(saved[owner == layer].max(initial=0.0) for layer in np.unique(owner))
    if most < needed:
        setting = f"{name}_reduction"
        raise GoalError(
            f"{setting} {needed / whole:.3f} cannot be reached: the smallest plan reaches "
            f"{np.floor(most / whole * 1000) / 1000:.3f}; ask for that or less, allow more layers "
            "or more methods"
        )
