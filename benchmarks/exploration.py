"""The design space of large CNNs on one machine: time, memory, agreement and growth.

For each model of keras.applications, at its native input size with random weights, all six methods
are scored on random images. Every exploration runs in a process of its own, so that its peak memory
is its own; the analysis is made before and does not count.

Run: python -m benchmarks.exploration                      every part below
     python -m benchmarks.exploration --parts size         ResNet50, VGG16, InceptionV3
     python -m benchmarks.exploration --parts naive        against one forward pass per candidate
     python -m benchmarks.exploration --parts layers ranks growth with depth, and with candidates
     [--images 256] [--few-images 64] [--out benchmarks/results/exploration.json]
Growth is also drawn, into exploration_layers.svg and exploration_ranks.svg beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import table
from benchmarks.table import Row
from lrf_core.console import progress
from lrf_core.report.chart import curve_chart, write_svg

PARTS = ("size", "naive", "layers", "ranks")
# What grows in a part, as its column is named.
GROWTH = {"layers": "layers", "ranks": "candidates"}
GIB = 2**30
SIZES = {"InceptionV3": 299}
SIZE = 224
# Candidates that are also judged by running the model.
NAIVE_SAMPLE = 30


def main() -> None:
    arguments = parse()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments)))
        return
    rows: list[Row] = []
    facts: Row = {"machine": table.machine(), "images": arguments.images, "seed": arguments.seed}
    with tempfile.TemporaryDirectory() as scratch:
        for part in arguments.parts:
            for label, settings in runs_of(part, arguments):
                row = {"part": part, **measured(label, settings, Path(scratch))}
                rows.append(row)
                table.write(arguments.out, rows, facts)
    for part in arguments.parts:
        mine = [row for row in rows if row["part"] == part]
        table.show(f"Exploration: {part}", mine, facts)
        if part in GROWTH:
            draw_growth(arguments.out.with_name(f"{arguments.out.stem}_{part}.svg"), part, mine)


def draw_growth(path: Path, part: str, rows: Sequence[Row]) -> None:
    """Draw the seconds against what grew."""
    column = GROWTH[part]
    points = [(row[column], row["seconds"], f"{row['model']}: {row['seconds']} s") for row in rows]
    write_svg(path, curve_chart("Seconds to explore", column, points, from_zero=True))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", default=["ResNet50", "VGG16", "InceptionV3"])
    parser.add_argument("--images", type=int, default=256, help="to calibrate on")
    parser.add_argument("--few-images", type=int, default=64, help="where growth is measured")
    parser.add_argument("--size", type=int, help="of the images; default: the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "exploration.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # the part that a process of its own runs
    parser.add_argument("--per-mode", type=int, default=16, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def runs_of(part: str, arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Flags of the processes that a part needs."""
    common = ["--seed", str(arguments.seed)]
    if arguments.size:
        common += ["--size", str(arguments.size)]
    many = [*common, "--images", str(arguments.images)]
    few = [*common, "--images", str(arguments.few_images)]
    if part == "size":
        for name in arguments.models:
            yield f"explore:{name}", many
    elif part == "naive":
        yield "naive:ResNet50", few
    elif part == "layers":
        for name in ("ResNet50", "ResNet101", "ResNet152"):
            yield f"explore:{name}", few
    else:
        for per_mode in (4, 8, 16, 32):
            yield "explore:ResNet50", [*few, "--per-mode", str(per_mode)]


def measured(label: str, flags: list[str], scratch: Path) -> Row:
    """What a process of its own measured."""
    kind, name = label.split(":")
    # Analysis first, elsewhere: its LiteRT conversion of a whole model takes memory of its own.
    for step in (f"analyze:{name}", label):
        command = [sys.executable, "-m", "benchmarks.exploration", "--one", step]
        done = subprocess.run(
            [*command, "--scratch", str(scratch), *flags], stdout=subprocess.PIPE, check=True
        )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return {"model": name, "kind": kind, **row}


def one(label: str, arguments: argparse.Namespace) -> Row:
    """Run one part in this process."""
    from lrf_core.console.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    import keras

    import lrf_core as lrf

    kind, name = label.split(":")
    keras.utils.set_random_seed(arguments.seed)
    size = arguments.size or SIZES.get(name, SIZE)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    rng = np.random.default_rng(arguments.seed)
    images = rng.integers(0, 256, (arguments.images, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 1000, len(images))
    split = lrf.Split.of(images, labels)
    few = split.take(np.arange(4))
    data = lrf.Data(split, few, tuple(map(str, range(1000))), "random images", "random")
    settings = lrf.ExploreSpec(samples=len(images), ranks_per_mode=arguments.per_mode)
    file = arguments.scratch / f"{name}-{size}.json"
    if kind == "analyze":
        if not file.exists():
            lrf.analyze(model, data, settings=settings, seed=arguments.seed).save(file)
        return {}
    analysis = lrf.Analysis.load(file)
    with progress.shown(), timed() as phases:
        started, used = time.perf_counter(), cpu_seconds()
        space = lrf.explore(model, data, analysis, settings=settings, seed=arguments.seed)
        seconds, used = time.perf_counter() - started, cpu_seconds() - used
    row = {
        "layers": len(space.layers),
        "candidates": len(space.candidates),
        "seconds": round(seconds, 1),
        "cpu_s": round(used, 1),
        "peak_gib": round(peak_gib(), 2),
        **{name: round(value, 1) for name, value in phases.items()},
    }
    if kind == "naive":
        row |= naive(model, split, analysis, space, seconds, arguments)
    return row


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds of the calibration, and thread seconds of the scoring by each method."""
    found: dict[str, float] = defaultdict(float)
    logger = logging.getLogger("lrf")
    handler = _Phases(found)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Phases(logging.Handler):
    """Reads what explore says of its work."""

    def __init__(self, found: dict[str, float]) -> None:
        super().__init__()
        self._found = found
        self._started: dict[int, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text, thread = record.getMessage(), threading.get_ident()
        if text.startswith("scoring "):
            self._started[thread] = record.created
        elif text.startswith("scored "):
            method = text.rsplit(" ", 1)[-1]
            self._found[f"{method}_s"] += record.created - self._started[thread]
        elif text.startswith("Calibrating") and " in " in text:
            self._found["calibration_s"] += float(text.rsplit(" ", 2)[-2])


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def naive(
    model: Any, split: Any, analysis: Any, space: Any, seconds: float, arguments: argparse.Namespace
) -> Row:
    """The obvious way, for a random sample of candidates: decompose, build, run the model.

    The error is that of the layer's output, against the original's, on the calibration images.
    """
    from scipy.stats import spearmanr

    from lrf_core.calibration import collect_moments
    from lrf_core.exploration.factorize import Factorizer
    from lrf_core.models.trace import walk

    rng = np.random.default_rng(arguments.seed)
    drawn = rng.choice(len(space.candidates), NAIVE_SAMPLE, replace=False)
    chosen = [space.candidates[index] for index in np.sort(drawn)]
    records = {record.name: record for record in analysis.eligible()}
    layers = {path: layer for path, layer in walk(model) if path in {c.layer for c in chosen}}
    moments = collect_moments(model, layers, split, seed=arguments.seed)
    took, errors = 0.0, []
    for candidate in chosen:
        started = time.perf_counter()
        factorizer = Factorizer(model, records, moments)
        replaced = factorizer.factorized(factorizer.fit([candidate]))
        took += time.perf_counter() - started
        error, ran = output_error(model, replaced, candidate.layer, split)
        took += ran
        errors.append(error)
        logging.getLogger("lrf").info(
            "%s %s: %.2e predicted, %.2e measured",
            candidate.layer,
            candidate.technique,
            candidate.error,
            error,
        )
    each = took / len(chosen)
    return {
        "naive_s_per_candidate": round(each, 2),
        "naive_s_extrapolated": round(each * len(space.candidates)),
        "times_faster": round(each * len(space.candidates) / seconds, 1),
        "spearman": round(float(spearmanr([c.error for c in chosen], errors).statistic), 4),
    }


def output_error(model: Any, replaced: Any, layer: str, split: Any) -> tuple[float, float]:
    """Relative squared error of a layer's output, and the seconds that the candidate ran."""
    import keras

    source, own = model.get_layer(layer), replaced.get_layer(layer)
    original = keras.Model(model.inputs, source.output)
    candidate = keras.Model(replaced.inputs, own.output)
    bias = keras.ops.convert_to_numpy(source.bias) if source.use_bias else 0.0
    took, error, energy = 0.0, 0.0, 0.0
    for images, _ in split.batches(16):
        started = time.perf_counter()
        answers = candidate.predict_on_batch(images)
        took += time.perf_counter() - started
        expected = original.predict_on_batch(images)
        error += float(np.sum((answers - expected) ** 2, dtype=np.float64))
        energy += float(np.sum((expected - bias) ** 2, dtype=np.float64))
    return error / energy, took


if __name__ == "__main__":
    main()
