"""What alone takes a layer's output: the operations behind it, through nested models."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from lrf_core.models.trace import is_graph

# A layer, or an operation of `keras.ops`.
Operation = Any

_FOLLOWED = 2


def consumers(model: keras.Model) -> dict[int, list[tuple[Operation, ...]]]:
    """For each layer, by id, one entry for every place where it is used.

    An entry holds up to two operations, in order: each takes nothing but the output of the one
    before (the first, the layer's), and nobody else takes that output.

    Args:
        model: a Functional or Sequential model.
    """
    flow = _Flow()
    answers = flow.run(model, [next(flow.tensors) for _ in model.inputs])
    for tensor in answers:
        flow.taken_by.setdefault(tensor, []).append(None)
    found: dict[int, list[tuple[Operation, ...]]] = {}
    for call in flow.calls:
        found.setdefault(id(call.operation), []).append(flow.behind(call))
    return found


@dataclass(frozen=True)
class _Call:
    operation: Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class _Flow:
    """The calls of a model and of the models in it, between tensors that are numbered."""

    tensors: Any = field(default_factory=itertools.count)
    calls: list[_Call] = field(default_factory=list)
    # None stands for the outside, which takes the model's answers.
    taken_by: dict[int, list[_Call | None]] = field(default_factory=dict)

    def run(self, model: keras.Model, inputs: Sequence[int]) -> list[int]:
        """Follow a graph from numbered inputs to its outputs, in Keras' flat order."""
        graph = model._functional if isinstance(model, keras.Sequential) else model
        known = {id(tensor): number for tensor, number in zip(graph.inputs, inputs, strict=True)}
        for node in _in_order(graph):
            sources = [known[id(tensor)] for tensor in node.input_tensors]
            if is_graph(node.operation) and len(node.operation.inputs) == len(sources):
                targets = self.run(node.operation, sources)
            else:
                targets = [next(self.tensors) for _ in node.outputs]
                self._add(_Call(node.operation, tuple(sources), tuple(targets)))
            known.update({id(tensor): n for tensor, n in zip(node.outputs, targets, strict=True)})
        return [known[id(tensor)] for tensor in graph.outputs]

    def _add(self, call: _Call) -> None:
        self.calls.append(call)
        for tensor in call.inputs:
            self.taken_by.setdefault(tensor, []).append(call)

    def behind(self, call: _Call) -> tuple[Operation, ...]:
        found: list[Operation] = []
        while len(found) < _FOLLOWED and len(call.outputs) == 1:
            takers = self.taken_by.get(call.outputs[0], [])
            if len(takers) != 1 or takers[0] is None or len(takers[0].inputs) != 1:
                break
            call = takers[0]
            found.append(call.operation)
        return tuple(found)


def _in_order(graph: Any) -> list[Any]:
    """The calls in a functional graph, inputs first."""
    by_depth = graph._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if node.operation is not None and not node.is_input
    ]
