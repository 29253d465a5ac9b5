"""Soundness: is the predicted output error the measured one, and full rank the layer itself?

Random convolutions (1-D, 2-D, 3-D and 1x1) and dense layers: any kernel, stride, dilation, padding
(valid, same, causal), data format, bias and activation that TensorFlow runs; half of the kernels
and of the inputs are badly conditioned. Each layer is replaced by every layout of every method that
applies to it, at two random ranks, and at full rank.

Error: of the output before bias and activation, squared, as a share of its energy, on the
calibration samples: predicted from moments, measured by running the rebuilt model. `ratio` is the
larger of both over the smaller. Errors below {floor:g} are rounding (moments are sums of float32
products) and are added to both. Identity: the largest difference of any answer at full rank, as a
share of the largest answer.

Run: python -m benchmarks.soundness [--layers 300] [--identities 100] [--seed 0]
     [--out benchmarks/results/soundness.json]
With TF_ENABLE_ONEDNN_OPTS=0 in the environment, TensorFlow computes without oneDNN.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, machine, show, write
from lrf_core.console import progress
from lrf_core.console.progress import track
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Candidate, LayerRecord  # noqa: E402
from lrf_core.calibration import collect_moments  # noqa: E402
from lrf_core.exploration.factorize import Factorizer  # noqa: E402
from lrf_core.exploration.score import Judge  # noqa: E402
from lrf_core.methods import Layout, Moments  # noqa: E402
from lrf_core.models.inventory import geometry_of, take_inventory  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402
from lrf_core.models.trace import walk  # noqa: E402

# Relative output error that float32 cannot tell from none.
FLOOR = 1e-6
# Layers side by side in one model, which TensorFlow compiles once.
TOGETHER = 10
RANKS = 2
SAMPLES = 16
CONVOLUTIONS = {
    "Conv1D": keras.layers.Conv1D,
    "Conv2D": keras.layers.Conv2D,
    "Conv3D": keras.layers.Conv3D,
    "1x1": keras.layers.Conv2D,
}
KINDS = (*CONVOLUTIONS, "Dense")
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Drawn:
    """A random layer, and samples for it."""

    kind: str
    about: str
    layer: keras.Layer
    samples: Array


@dataclass(frozen=True)
class Outcome:
    """One replacement of one layer.

    Attributes:
        predicted, measured: output error, as a share of the output's energy.
        difference: largest, of the answers, as a share of the largest answer.
    """

    kind: str
    method: str
    about: str
    predicted: float
    measured: float
    difference: float

    @property
    def ratio(self) -> float:
        low, high = sorted((self.predicted, self.measured))
        return (high + FLOOR) / (low + FLOOR)


def main() -> None:
    arguments = parse()
    with progress.shown():
        errors = list(outcomes(arguments.layers, arguments.seed, full=False))
        same = list(outcomes(arguments.identities, arguments.seed + 1, full=True))
    rows = [row(kind, errors, same) for kind in (*KINDS, "all")]
    facts = {
        "machine": machine(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow decides"),
        "seed": arguments.seed,
        "worst_ratio": described(max(errors, key=lambda each: each.ratio)),
        "worst_identity": described(max(same, key=lambda each: each.difference)),
    }
    show("Predicted and measured", rows, facts, lambda row: row["worst_ratio"] > 2)
    write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--identities", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soundness.json"))
    return parser.parse_args()


def row(kind: str, errors: Sequence[Outcome], same: Sequence[Outcome]) -> Row:
    own = [each for each in errors if kind in (each.kind, "all")]
    exact = [each for each in same if kind in (each.kind, "all")]
    ratios = np.array([each.ratio for each in own])
    return {
        "layer": kind,
        "layers": len({each.about for each in own}),
        "candidates": len(own),
        "rounding_only": sum(max(each.predicted, each.measured) < FLOOR for each in own),
        "median_ratio": round(float(np.median(ratios)), 4),
        "worst_ratio": round(float(ratios.max()), 4),
        "identities": len(exact),
        "largest_difference": float(f"{max(each.difference for each in exact):.1e}"),
    }


def described(worst: Outcome) -> str:
    return (
        f"{worst.method} of {worst.about}: predicted {worst.predicted:.2e}, measured "
        f"{worst.measured:.2e}, answers {worst.difference:.1e} apart"
    )


def outcomes(count: int, seed: int, *, full: bool) -> Iterator[Outcome]:
    """Of `count` random layers, at full rank or at ranks below.

    Args:
        seed: of everything random; equal seeds give equal layers.
    """
    starts = range(0, count, TOGETHER)
    for start in track(starts, "Full ranks" if full else "Lower ranks"):
        rng = np.random.default_rng([seed, start])
        drawn = [random_layer(rng, number) for number in range(start, min(start + TOGETHER, count))]
        yield from _outcomes_of(drawn, rng, full=full)


def _outcomes_of(
    drawn: Sequence[Drawn], rng: np.random.Generator, *, full: bool
) -> Iterator[Outcome]:
    inputs = [keras.Input(each.samples.shape[1:]) for each in drawn]
    answers = [each.layer(tensor) for each, tensor in zip(drawn, inputs, strict=True)]
    model = keras.Model(inputs, answers)
    samples = [each.samples for each in drawn]
    records = {r.name: r for r in take_inventory(model, methods.names()) if r.methods}
    layers = {path: layer for path, layer in walk(model) if path in records}
    moments = collect_moments(model, layers, samples, batch_size=SAMPLES)
    factorizer = Factorizer(model, records, moments)
    queues = {
        path: [
            _candidate(record, layout, ranks)
            for layout in _layouts(record)
            for ranks in ([layout.full_ranks] if full else _lower_ranks(layout, rng))
        ]
        for path, record in records.items()
    }
    original, linear = model(samples), _linear(splice(model, {}))(samples)
    while any(queues.values()):
        chosen = {path: queue.pop() for path, queue in queues.items() if queue}
        rebuilt = factorizer.factorized(factorizer.fit(list(chosen.values())))
        found, found_linear = rebuilt(samples), _linear(rebuilt)(samples)
        for index, each in enumerate(drawn):
            if each.layer.name not in chosen:
                continue
            candidate = chosen[each.layer.name]
            yield Outcome(
                kind=each.kind,
                method=candidate.technique,
                about=each.about,
                predicted=_predicted(factorizer, records, layers, moments, candidate),
                measured=_error(linear[index], found_linear[index]),
                difference=_difference(original[index], found[index]),
            )


def _layouts(record: LayerRecord) -> list[Layout]:
    geometry = geometry_of(record)
    return [layout for name in record.methods for layout in methods.get(name).layouts(geometry)]


def _lower_ranks(layout: Layout, rng: np.random.Generator) -> list[tuple[int, ...]]:
    offered = [ranks for ranks in layout.candidate_ranks(8) if ranks != layout.full_ranks]
    return [offered[i] for i in rng.choice(len(offered), min(RANKS, len(offered)), replace=False)]


def _candidate(record: LayerRecord, layout: Layout, ranks: tuple[int, ...]) -> Candidate:
    return Candidate(
        layer=record.name,
        method=layout.method,
        form=layout.name,
        ranks=ranks,
        cost=layout.cost(ranks),
        error=0,
        similarity=1,
        sensitivity=0,
    )


def _predicted(
    factorizer: Factorizer,
    records: dict[str, LayerRecord],
    layers: dict[str, keras.Layer],
    moments: dict[str, Moments],
    candidate: Candidate,
) -> float:
    path = candidate.layer
    judge = Judge.of(records[path], layers[path], moments[path], "nmse")
    return judge.errors(factorizer.decomposition(candidate), candidate.ranks)[0]


def _linear(model: keras.Model) -> keras.Model:
    """The model without biases and activations, which it loses."""
    for layer in model.layers:
        if hasattr(layer, "activation"):
            layer.activation = keras.activations.linear
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(keras.ops.zeros_like(layer.bias))
    return model


def _error(wanted: Any, found: Any) -> float:
    """Squared error as a share of the energy."""
    products, replaced = (
        keras.ops.convert_to_numpy(values).astype(np.float64) for values in (wanted, found)
    )
    return float(np.sum((products - replaced) ** 2) / np.sum(products**2))


def _difference(wanted: Any, found: Any) -> float:
    scale = max(float(keras.ops.max(keras.ops.abs(wanted))), 1e-30)
    return float(keras.ops.max(keras.ops.abs(wanted - found))) / scale


def random_layer(rng: np.random.Generator, number: int) -> Drawn:
    """A layer with weights, called `layer` and its number."""
    kind = KINDS[number % len(KINDS)]
    shape, settings = _dense(rng) if kind == "Dense" else _convolution(rng, kind)
    layer = {**CONVOLUTIONS, "Dense": keras.layers.Dense}[kind](**settings, name=f"layer{number}")
    layer.build((None, *shape))
    conditioning, inputs = rng.choice(["plain", "bad"], 2)
    scale = 1 / np.sqrt(np.prod(layer.kernel.shape[:-1]))
    layer.kernel.assign(scale * _kernel(rng, layer.kernel.shape, conditioning == "bad"))
    if layer.use_bias:
        layer.bias.assign(0.1 * rng.normal(size=layer.bias.shape))
    told = {k: v for k, v in settings.items() if v not in (None, False, "valid", 1)}
    about = (
        f"{kind} {number} on {'x'.join(map(str, shape))} {told}, {conditioning} kernel, "
        f"{inputs} inputs"
    )
    first = settings.get("data_format") == "channels_first"
    channels = shape[0] if first else shape[-1]
    samples = _inputs(rng, (*(shape[1:] if first else shape[:-1]), channels), inputs == "bad")
    return Drawn(kind, about, layer, np.moveaxis(samples, -1, 1) if first else samples)


def _dense(rng: np.random.Generator) -> tuple[tuple[int, ...], dict[str, Any]]:
    leading = [(), (), (5,), (3, 4)][rng.integers(4)]
    settings = {
        "units": int(rng.integers(2, 48)),
        "use_bias": bool(rng.integers(2)),
        "activation": [None, "relu", "softmax", "gelu"][rng.integers(4)],
    }
    return (*leading, int(rng.integers(4, 96))), settings


def _convolution(rng: np.random.Generator, kind: str) -> tuple[tuple[int, ...], dict[str, Any]]:
    rank = 2 if kind == "1x1" else int(kind[4])
    dilated = rng.random() < 0.25  # TensorFlow has no strides beside dilation
    strides = (1,) * rank if dilated else tuple(int(s) for s in rng.choice([1, 1, 2, 3], rank))
    settings: dict[str, Any] = {
        "filters": int(rng.integers(2, 24)),
        "kernel_size": (1,) * rank if kind == "1x1" else tuple(map(int, rng.integers(1, 4, rank))),
        "strides": strides,
        "dilation_rate": 2 if dilated and kind != "1x1" else 1,
        "padding": str(rng.choice(["valid", "same", *(["causal"] if rank == 1 else [])])),
        "use_bias": bool(rng.integers(2)),
        "activation": [None, "relu", "tanh"][rng.integers(3)],
        "data_format": str(rng.choice(["channels_last", "channels_first"])),
    }
    spatial = tuple(int(size) for size in rng.integers(6, {1: 48, 2: 14, 3: 8}[rank], rank))
    channels = (int(rng.integers(3, 24)),)
    first = settings["data_format"] == "channels_first"
    return (channels + spatial if first else spatial + channels), settings


def _kernel(rng: np.random.Generator, shape: Sequence[int], bad: bool) -> Array:
    """Normal; or with singular values over six decades, or filters of very different size."""
    kernel = rng.normal(size=(int(np.prod(shape[:-1])), shape[-1]))
    if bad and rng.integers(2):
        left, values, right = np.linalg.svd(kernel, full_matrices=False)
        kernel = (left * np.geomspace(values[0], values[0] * 1e-6, len(values))) @ right
    elif bad:
        kernel *= np.geomspace(1, 1e-6, shape[-1])
    return np.asarray(kernel.reshape(shape))


def _inputs(rng: np.random.Generator, shape: tuple[int, ...], bad: bool) -> Array:
    """Normal; or with channels that are nearly alike, or almost constant, or mostly zero."""
    samples = rng.normal(size=(SAMPLES, *shape))
    if bad:
        channels = shape[-1]
        mixing = np.linalg.qr(rng.normal(size=(channels, channels)))[0]
        samples = [
            samples @ (mixing * np.geomspace(1, 1e-4, channels)),
            1 + 1e-2 * samples,
            np.maximum(samples, 0) * (rng.random(channels) < 0.5),
        ][rng.integers(3)]
    return np.asarray(samples, np.float32)


if __name__ == "__main__":
    main()
