"""Run layers and chains in LiteRT, each as a model of its own, in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from lrf_core.errors import ExportError
from lrf_core.export import LitertModel, random_samples, to_litert
from lrf_core.export.interface import samples_by_name
from lrf_core.latency.table import Point
from lrf_core.measurement.timing import Latency, Run, processor_time_in_turns

# Models that are held to be run in turns, at most.
_BYTES_HELD = 2**29
# Repeats end when they have taken this long for each model on average.
_SECONDS_EACH = 0.5


@dataclass(frozen=True)
class Subject:
    """Layers in a row to be measured under a name.

    Attributes:
        key: tells the subjects apart.
        layers: makes them, unbuilt.
    """

    key: tuple[Any, ...]
    layers: Callable[[], Sequence[keras.Layer]]


# A measurement, or why LiteRT cannot run the layers.
Outcome = Point | str


def measured(
    subjects: Sequence[Subject], input_shapes: Sequence[tuple[int, ...]], repeats: int
) -> Iterator[dict[tuple[Any, ...], Outcome]]:
    """Measure each subject, as many in turns as memory holds; yields their outcomes by key.

    Equal layers in a row are measured once. What counts is time on the processor, see
    `models.latency.processor_time_in_turns`; copying inputs and outputs does not. Inputs are
    random, of one sample, and the layers are called once with each; weights are fresh.

    Args:
        input_shapes: of one sample, for each call of the layers.
        repeats: of each, at most; slow ones are repeated less often, at least 5 times.
    """
    waiting: list[tuple[list[tuple[Any, ...]], Run]] = []
    held = 0
    for keys, layers in _distinct(subjects):
        try:
            litert, run = _running(layers, input_shapes)
        except ExportError as error:
            yield dict.fromkeys(keys, str(error))
            continue
        if waiting and held + litert.tensor_bytes > _BYTES_HELD:
            yield _timed(waiting, repeats)
            waiting, held = [], 0
        waiting.append((keys, run))
        held += litert.tensor_bytes
    if waiting:
        yield _timed(waiting, repeats)


def _timed(
    waiting: Sequence[tuple[list[tuple[Any, ...]], Run]], repeats: int
) -> dict[tuple[Any, ...], Outcome]:
    seconds = _SECONDS_EACH * len(waiting)
    latencies = processor_time_in_turns([run for _, run in waiting], repeats, seconds)
    return {
        key: _point(latency)
        for (keys, _), latency in zip(waiting, latencies, strict=True)
        for key in keys
    }


def _point(latency: Latency) -> Point:
    return Point(
        median_ms=round(latency.median_ms, 6),
        p95_ms=round(latency.p95_ms, 6),
        repeats=latency.repeats,
    )


def _running(
    layers: Sequence[keras.Layer], input_shapes: Sequence[tuple[int, ...]]
) -> tuple[LitertModel, Run]:
    model = _alone(layers, input_shapes)
    litert = LitertModel(to_litert(model))
    run = litert.ready(samples_by_name(model, random_samples(model, 1, seed=0)))
    run()  # what cannot be run is found here
    return litert, run


def _alone(layers: Sequence[keras.Layer], input_shapes: Sequence[tuple[int, ...]]) -> keras.Model:
    """A model of these layers only, called once with each input."""
    inputs = [keras.Input(shape, name=f"input_{i}") for i, shape in enumerate(input_shapes)]
    outputs = []
    for tensor in inputs:
        for layer in layers:
            tensor = layer(tensor)
        outputs.append(tensor)
    return keras.Model(inputs, outputs, name="alone")


def _distinct(
    subjects: Sequence[Subject],
) -> Iterator[tuple[list[tuple[Any, ...]], Sequence[keras.Layer]]]:
    """Layers in a row, with the keys of all subjects that have the same."""
    by_layers: dict[str, list[Subject]] = {}
    for subject in subjects:
        by_layers.setdefault(_settings(subject.layers()), []).append(subject)
    for same in by_layers.values():
        yield [subject.key for subject in same], same[0].layers()


def _settings(layers: Sequence[keras.Layer]) -> str:
    """All settings of layers in a row but their names."""
    settings = []
    for layer in layers:
        config = layer.get_config()
        del config["name"]
        settings.append((type(layer).__name__, config))
    return json.dumps(settings, sort_keys=True, default=keras.saving.serialize_keras_object)
