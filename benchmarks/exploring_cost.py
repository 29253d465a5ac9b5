"""How long scoring takes per layer and method, and the law that shards are balanced by.

Layers of many shapes with random weights and inputs are scored by every method that applies, one
at a time, with one BLAS thread; CPU seconds are counted, so that a busy machine does not matter
much. For each method `seconds = k * n**a * c**b`, `n` rows and `c` output channels of the kernel,
is fitted to the logarithms: the `exploring_cost` of each method in lrf_core/methods. `predicted_s`
is what stands there now; rows in yellow are off by more than a factor of 2.

Run: python -m benchmarks.exploring_cost
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import table
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import LayerRecord  # noqa: E402
from lrf_core.console import progress  # noqa: E402
from lrf_core.exploration.parallel import one_blas_thread  # noqa: E402
from lrf_core.exploration.score import score_layer  # noqa: E402
from lrf_core.exploration.shards import exploring_seconds  # noqa: E402
from lrf_core.methods import Moments  # noqa: E402
from lrf_core.models.inventory import take_inventory  # noqa: E402

# `(window, inputs, outputs)` of 2-D convolutions, and `(inputs, outputs)` of dense layers.
CONVOLUTIONS = (
    *((3, 16, 16), (3, 32, 32), (3, 64, 64), (3, 64, 128), (3, 128, 128), (3, 256, 256)),
    *((7, 3, 64), (5, 48, 64), (1, 64, 256), (1, 256, 64), (1, 512, 128), (1, 512, 1024)),
)
DENSE = ((128, 10), (512, 512), (1024, 256), (2048, 1000))
ROWS, RANKS_PER_MODE = 6000, 16
# Below this a measurement is mostly overhead.
LEAST_S = 0.05
OFF = 2.0


def main() -> None:
    arguments = parse()
    cases = layers(arguments.largest)
    rows = []
    with progress.shown():
        for title, shape, layer in progress.track(cases, "Scoring layers"):
            rows += measured(title, shape, layer())
    facts = {
        "laws_k_a_b": {name: law(rows, name) for name in methods.names()},
        "machine": table.machine(),
    }
    table.show("CPU seconds to score one layer by one method", rows, facts, is_off)
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--largest", type=int, help="leave out layers with more weights; default: none"
    )
    parser.add_argument("--out", type=Path, default=table.RESULTS / "exploring_cost.json")
    return parser.parse_args()


def layers(
    largest: int | None,
) -> list[tuple[str, tuple[int, ...], Callable[[], keras.Layer]]]:
    """Title, shape of one sample, and what makes the layer."""
    found: list[tuple[str, tuple[int, ...], Callable[[], keras.Layer]]] = []
    for window, inputs, outputs in CONVOLUTIONS:
        if not largest or window**2 * inputs * outputs <= largest:
            title = f"Conv2D {window}x{window}x{inputs}>{outputs}"
            found.append((title, (14, 14, inputs), convolution(window, outputs)))
    for inputs, outputs in DENSE:
        if not largest or inputs * outputs <= largest:
            found.append((f"Dense {inputs}>{outputs}", (inputs,), dense(outputs)))
    return found


def convolution(window: int, outputs: int) -> Callable[[], keras.Layer]:
    return lambda: keras.layers.Conv2D(outputs, window, padding="same", activation="relu")


def dense(outputs: int) -> Callable[[], keras.Layer]:
    return lambda: keras.layers.Dense(outputs, activation="relu")


def measured(title: str, shape: tuple[int, ...], layer: keras.Layer) -> list[table.Row]:
    inputs = keras.Input(shape)
    (record,) = take_inventory(keras.Model(inputs, layer(inputs)), methods.names())
    moments = random_moments(record)
    return [row_of(title, record, layer, name, moments) for name in record.methods]


def row_of(
    title: str, record: LayerRecord, layer: keras.Layer, method: str, moments: Moments
) -> table.Row:
    alone = record.model_copy(update={"methods": (method,)})
    with one_blas_thread():
        started = time.process_time()
        found = score_layer(alone, layer, moments, per_mode=RANKS_PER_MODE, similarity="nmse")
        seconds = time.process_time() - started
    return {
        "layer": title,
        "method": method,
        "n": int(np.prod(record.kernel_shape[:-1])),
        "c": record.kernel_shape[-1],
        "candidates": len(found),
        "cpu_s": round(seconds, 3),
        "predicted_s": round(exploring_seconds(alone), 3),
    }


def random_moments(record: LayerRecord) -> Moments:
    """Of inputs behind a ReLU, some of them much weaker than others."""
    rng = np.random.default_rng(0)
    width, outputs = int(np.prod(record.kernel_shape[:-1])), record.kernel_shape[-1]
    normal = rng.normal(size=(ROWS, width)) * np.linspace(1.0, 0.05, width)
    rows = np.maximum(normal, 0.0).astype(np.float32)
    gradients = rng.normal(size=(ROWS, outputs))
    second = (rows.T @ rows).astype(np.float64)
    return Moments(second, gradients.T @ gradients, rows[:1024], ROWS)


def law(rows: list[table.Row], method: str) -> list[float] | None:
    """`[k, a, b]`, least squares in logarithms; None if too few layers were measured."""
    used = [row for row in rows if row["method"] == method and row["cpu_s"] >= LEAST_S]
    sizes = np.log([[np.e, row["n"], row["c"]] for row in used])
    if len(used) < 3 or np.linalg.matrix_rank(sizes) < 3:
        return None
    found, *_ = np.linalg.lstsq(sizes, np.log([row["cpu_s"] for row in used]), rcond=None)
    return [float(f"{np.exp(found[0]):.2g}"), round(float(found[1]), 2), round(float(found[2]), 2)]


def is_off(row: table.Row) -> bool:
    measured_s, predicted_s = row["cpu_s"], row["predicted_s"]
    longer = max(measured_s, predicted_s)
    return bool(longer >= LEAST_S and longer > OFF * min(measured_s, predicted_s))


if __name__ == "__main__":
    main()
