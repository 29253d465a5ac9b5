"""How close the answers of an exported file are to those of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.progress import track
from lrf_core.errors import ExportError
from lrf_core.export.interface import as_called, by_output_name, in_structure, samples_by_name
from lrf_core.export.runtime import ExportedModel
from lrf_core.models.structure import Samples
from lrf_core.models.unroll import to_functional

Array = npt.NDArray[Any]

_BATCH = 32


@dataclass(frozen=True)
class Closeness:
    """What an export changes.

    Attributes:
        largest_difference: between two answers, as a share of the model's largest answer; of
            several outputs, the worst.
        same_class: percent of samples whose largest answer is at the same class; of several
            outputs, the worst. None if no output is `(n, classes)`.
        samples: how many were compared.
    """

    largest_difference: float
    same_class: float | None
    samples: int


def closeness(model: keras.Model, exported: ExportedModel, samples: Samples) -> Closeness:
    """Run an export and its model on the same samples.

    Args:
        model: the Keras model that was exported.
        exported: see `open_exported`.
        samples: `(n, *input_shape)` of any numeric type; for several inputs a list or dict of
            arrays, in the structure of the model's own input.

    Raises:
        DataError: the samples do not fit the model.
        ExportError: the export does not run, has other outputs than the model, or either answers
            with values that are not finite.
    """
    graph = to_functional(model)
    named = samples_by_name(graph, samples)
    count = len(next(iter(named.values())))
    pairs = []
    for start in track(range(0, count, _BATCH), "Comparing answers"):
        batch = {name: values[start : start + _BATCH] for name, values in named.items()}
        own = graph.predict_on_batch(as_called(graph, in_structure(graph, batch)))
        pairs.append((by_output_name(own), exported.run(batch)))
    expected, found = (_joined([pair[side] for pair in pairs]) for side in (0, 1))
    _check_comparable(model, expected, found)
    shares = [_share_of_same_class(expected[name], found[name]) for name in expected]
    return Closeness(
        largest_difference=max(_difference(expected[name], found[name]) for name in expected),
        same_class=min((share for share in shares if share is not None), default=None),
        samples=count,
    )


def answering_like(model: keras.Model, exported: ExportedModel) -> Callable[[Samples], Any]:
    """An export as a function of samples, which takes and answers them as the model itself does.

    Where the model has a list or dict of inputs or outputs, so has the function.

    Raises:
        ModelError: a subclassed model that cannot be followed.
    """
    graph = to_functional(model)
    structure = graph.outputs[0] if isinstance(graph, keras.Sequential) else graph.output
    names = tuple(by_output_name(structure))

    def answer(samples: Samples) -> Any:
        answers = exported.run(samples_by_name(graph, samples))
        if isinstance(structure, Mapping):
            return {key: answers[key] for key in structure}
        return keras.tree.pack_sequence_as(structure, [answers[name] for name in names])

    return answer


def _joined(parts: list[dict[str, Array]]) -> dict[str, Array]:
    # bfloat16 and float16 answers would lose the difference that is asked for.
    return {
        name: np.concatenate([np.asarray(part[name], np.float64) for part in parts])
        for name in parts[0]
    }


def _check_comparable(
    model: keras.Model, expected: Mapping[str, Array], found: Mapping[str, Array]
) -> None:
    shapes = [
        {name: values.shape for name, values in answers.items()} for answers in (expected, found)
    ]
    if shapes[0] != shapes[1]:
        raise ExportError(
            f"the export of model '{model.name}' answers with {shapes[1]}, the model itself with "
            f"{shapes[0]}"
        )
    for who, answers in (("model", expected), ("export of model", found)):
        unsound = [name for name, values in answers.items() if not np.isfinite(values).all()]
        if unsound:
            raise ExportError(
                f"the {who} '{model.name}' answers these samples with NaN or infinite values "
                f"({', '.join(unsound)}); they cannot be compared"
            )


def _difference(expected: Array, found: Array) -> float:
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(expected - found).max(initial=0.0)) / scale


def _share_of_same_class(expected: Array, found: Array) -> float | None:
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    return 100.0 * float(np.mean(expected.argmax(axis=-1) == found.argmax(axis=-1)))
