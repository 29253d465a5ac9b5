"""One layer at a time: where fewer parameters are not faster.

Every method on one layer of each kind, at about half and a quarter of the layer's parameters (the
dense layer also at a fiftieth): parameters, multiply-adds, and latency of one sample as a share of
the layer's own, in LiteRT (one thread) and in TensorFlow (a compiled graph, all cores). Layer and
chain run in turns, so that a busy machine slows both alike. Weights are random: cost and latency do
not depend on them. Of a method with several layouts, the two are shown that come nearest. Rows in
yellow are no faster than the layer in one of the runtimes or in both.

Run: python -m benchmarks.layers
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import table
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import LayerRecord  # noqa: E402
from lrf_core.errors import ExportError  # noqa: E402
from lrf_core.export import LitertModel, to_litert  # noqa: E402
from lrf_core.measurement.timing import Run, compare_latency, litert_run, time_latency  # noqa: E402
from lrf_core.methods import Layout  # noqa: E402
from lrf_core.methods.base import Ranks  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402
from lrf_core.models.inventory import geometry_of, take_inventory  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402

# A ratio above this is taken for no faster: it is within what repeated runs differ by.
NO_FASTER = 0.95
RANKS_PER_MODE = 16
AS_IT_IS = "as it is"
FORMS_SHOWN = 2
# Of ranks whose size is this near to the best one's, relative, the most even are taken.
AS_NEAR = 0.05


@dataclass(frozen=True)
class Case:
    """A layer and what it is called with.

    Attributes:
        title: for people.
        layer: makes the layer.
        shape: of one sample.
        more_shares: of its parameters, at which it is measured too.
    """

    title: str
    layer: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    more_shares: tuple[float, ...] = ()


def convolution(kind: type[keras.Layer], filters: int, size: int) -> Callable[[], keras.Layer]:
    return lambda: kind(filters, size, padding="same", activation="relu", name="layer")


CASES = {
    "conv1d": Case("Conv1D 5x128>128, 128", convolution(keras.layers.Conv1D, 128, 5), (128, 128)),
    "conv2d": Case(
        "Conv2D 3x3x128>128, 28x28", convolution(keras.layers.Conv2D, 128, 3), (28, 28, 128)
    ),
    "conv2d-large": Case(
        "Conv2D 7x7x64>64, 56x56", convolution(keras.layers.Conv2D, 64, 7), (56, 56, 64)
    ),
    "conv3d": Case(
        "Conv3D 3x3x3x32>32, 8x28x28", convolution(keras.layers.Conv3D, 32, 3), (8, 28, 28, 32)
    ),
    "pointwise": Case(
        "Conv2D 1x1x256>256, 14x14", convolution(keras.layers.Conv2D, 256, 1), (14, 14, 256)
    ),
    "dense": Case(
        "Dense 4096>1024",
        lambda: keras.layers.Dense(1024, activation="relu", name="layer"),
        (4096,),
        more_shares=(0.02,),
    ),
}


def main() -> None:
    arguments = parse()
    rows = []
    with progress.shown():
        for case in [CASES[name] for name in arguments.only]:
            shares = [*arguments.shares, *case.more_shares]
            rows += rows_of(case, shares, arguments.repeats)
    facts = {
        "repeats": arguments.repeats,
        "no_faster_from": NO_FASTER,
        "machine": table.machine(),
    }
    title = "One layer: cost and latency as shares of the layer's own"
    table.show(title, [printed(row) for row in rows], facts, is_not_faster)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=CASES, default=list(CASES), help="layers; default: all"
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=[0.5, 0.25],
        help="of the layer's parameters; default: 0.5 0.25",
    )
    parser.add_argument("--repeats", type=int, default=50, help="timed runs of each; default: 50")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "layers.json")
    return parser.parse_args()


def printed(row: table.Row) -> table.Row:
    """The row without the layer's name, which stands in the first row of a layer instead."""
    name = row["layer"] if row["method"] == AS_IT_IS else row["method"]
    short = {**row, "method": name, "macs": f"{row['macs'] / 1e6:.1f}M"}
    del short["layer"]
    return short


def is_not_faster(row: table.Row) -> bool:
    return row["faster_in"] not in ("", "both")


@dataclass(frozen=True)
class Runs:
    """One forward pass in each runtime; None if LiteRT has no operation for it."""

    litert: Run | None
    tensorflow: Run


@dataclass(frozen=True)
class Subject:
    """A layer alone in a model, and how it is timed."""

    title: str
    model: keras.Model
    record: LayerRecord
    runs: Runs
    sample: np.ndarray
    repeats: int


def rows_of(case: Case, shares: Sequence[float], repeats: int) -> list[table.Row]:
    inputs = keras.Input(case.shape)
    model = keras.Model(inputs, case.layer()(inputs))
    (record,) = take_inventory(model, methods.names())
    sample = np.random.default_rng(0).normal(size=(1, *case.shape)).astype(np.float32)
    runs = runs_of(model, sample)
    original = Subject(case.title, model, record, runs, sample, repeats)
    rows = [row_of_candidate(original, each) for each in candidates(record, shares)]
    return [row_of_original(original), *rows]


def candidates(record: LayerRecord, shares: Sequence[float]) -> list[tuple[Layout, Ranks]]:
    """Of every method, for every share, the two layouts that come nearest."""
    found = []
    for name in record.methods:
        layouts = methods.get(name).layouts(geometry_of(record))
        for params in [share * record.cost.params for share in shares]:
            offered = [(layout, ranks_near(layout, params)) for layout in layouts]
            offered.sort(key=lambda each: away(each[0], each[1], params))
            found += offered[:FORMS_SHOWN]
    return list(dict.fromkeys(found))


def ranks_near(layout: Layout, params: float) -> Ranks:
    """The candidate whose size is nearest, or nearly so with ranks more alike."""

    def unevenness(ranks: Ranks) -> float:
        shares = [rank / full for rank, full in zip(ranks, layout.full_ranks, strict=True)]
        return max(shares) - min(shares)

    offered = layout.candidate_ranks(RANKS_PER_MODE)
    nearest = min(away(layout, ranks, params) for ranks in offered)
    near = [r for r in offered if away(layout, r, params) <= nearest + AS_NEAR * params]
    return min(near, key=lambda ranks: (unevenness(ranks), away(layout, ranks, params)))


def away(layout: Layout, ranks: Ranks, params: float) -> float:
    return abs(layout.cost(ranks).params - params)


def row_of_original(original: Subject) -> table.Row:
    cost = original.record.cost
    litert, tensorflow = original.runs.litert, original.runs.tensorflow
    return {
        "layer": original.title,
        "method": AS_IT_IS,
        "ranks": "",
        "params": cost.params,
        "macs": cost.macs,
        "params_ratio": 1.0,
        "macs_ratio": 1.0,
        "litert_ms": litert and round(time_latency(litert, original.repeats).median_ms, 3),
        "litert_ratio": 1.0,
        "tf_ms": round(time_latency(tensorflow, original.repeats).median_ms, 3),
        "tf_ratio": 1.0,
        "faster_in": "",
    }


def row_of_candidate(original: Subject, candidate: tuple[Layout, Ranks]) -> table.Row:
    layout, ranks = candidate
    record = original.record
    chain = layout.chain(original.model.get_layer(record.name), ranks)
    factorized = splice(original.model, {record.name: chain})
    cost = layout.cost(ranks)
    if model_cost(factorized) != cost:
        raise SystemExit(f"{original.title}: {layout.method} {ranks} does not cost what it says")
    runs = runs_of(factorized, original.sample)
    litert_ms, litert = compared(original.runs.litert, runs.litert, original.repeats)
    tensorflow_ms, tensorflow = compared(
        original.runs.tensorflow, runs.tensorflow, original.repeats
    )
    return {
        "layer": original.title,
        "method": f"{layout.method} {layout.name}".strip(),
        "ranks": "x".join(str(rank) for rank in ranks),
        "params": cost.params,
        "macs": cost.macs,
        "params_ratio": round(cost.params / record.cost.params, 3),
        "macs_ratio": round(cost.macs / record.cost.macs, 3),
        "litert_ms": litert_ms,
        "litert_ratio": litert,
        "tf_ms": tensorflow_ms,
        "tf_ratio": tensorflow,
        "faster_in": faster_in({"LiteRT": litert, "TF": tensorflow}),
    }


def faster_in(ratios: dict[str, float | None]) -> str:
    names = [name for name, ratio in ratios.items() if ratio is not None and ratio <= NO_FASTER]
    return "both" if len(names) == len(ratios) else ", ".join(names) or "none"


def runs_of(model: keras.Model, sample: np.ndarray) -> Runs:
    constant = tf.constant(sample)
    graph = tf.function(lambda batch: model(batch, training=False)).get_concrete_function(constant)
    try:
        litert = litert_run(LitertModel(to_litert(model)), sample)
    except ExportError:
        litert = None
    return Runs(litert, lambda: graph(constant).numpy())


def compared(first: Run | None, second: Run | None, repeats: int) -> tuple[float | None, ...]:
    """Milliseconds of the second, and as a share of the first's."""
    if first is None or second is None:
        return None, None
    before, after = compare_latency(first, second, repeats)
    return round(after.median_ms, 3), round(after.median_ms / before.median_ms, 2)


if __name__ == "__main__":
    main()
