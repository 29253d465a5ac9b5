"""The memory that analyze, explore and decompose take with `explore.memory_gib: 2`, at their peak.

ResNet50 and VGG16 of keras.applications, with random weights and random images: what is allocated
depends on neither. Each stage runs in a process of its own. `start_gib` is what that process holds
before the stage, with TensorFlow, the model and the images; `peak_gib` is the most it ever held,
and `beyond_gib` the difference. What a stage may take beyond the budget is stated as `times`
weights, for the copies of the model and the kernels in float64, and `constant_gib`.

Run: python -m benchmarks.stage_memory [--models ResNet50 VGG16] [--samples 512]
     [--out benchmarks/results/stage_memory.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import table

MEMORY_GIB = 2.0
# What docs/compressing.md states beside `explore.memory_gib`.
WEIGHTS, CONSTANT_GIB = 6.0, 2.0
_GIB = 2**30
_SIDE, _CLASSES = 224, 1000
STAGES = ("analyze", "explore", "decompose")


def main() -> None:
    arguments = parse()
    if arguments.stage:
        print(json.dumps(of_stage(arguments.stage, arguments.models[0], arguments)))
        return
    rows = []
    for model in arguments.models:
        for stage in STAGES:
            rows.append(in_process(stage, model, arguments))
            print(rows[-1], file=sys.stderr, flush=True)
    facts = {"samples": arguments.samples, "memory_gib": MEMORY_GIB, "machine": table.machine()}
    table.show("Memory of stages", rows, facts, lambda row: row["peak_gib"] > row["allowed_gib"])
    table.write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["ResNet50", "VGG16"])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "stage-memory",
        help="of what the stages hand on",
    )
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=table.RESULTS / "stage_memory.json")
    return parser.parse_args()


def in_process(stage: str, model: str, arguments: argparse.Namespace) -> table.Row:
    """Run one stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stage_memory", "--stage", stage]
    settings = ["--samples", str(arguments.samples), "--folder", str(arguments.folder)]
    done = subprocess.run(
        [*command, "--models", model, *settings], stdout=subprocess.PIPE, text=True, check=True
    )
    row: table.Row = json.loads(done.stdout.splitlines()[-1])
    return row


def of_stage(stage: str, name: str, arguments: argparse.Namespace) -> table.Row:
    """One row, measured in this process."""
    import keras
    import numpy as np

    import lrf_core as lrf

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, classes=_CLASSES)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.samples + 8, _SIDE, _SIDE, 3), np.uint8)
    labels = np.arange(len(images)) % 8
    data = lrf.Data.from_arrays(images[8:], labels[8:], images[:8], labels[:8])
    explore = lrf.ExploreSpec(samples=arguments.samples, memory_gib=MEMORY_GIB)
    start, begun = peak_bytes(), time.perf_counter()
    folder = arguments.folder / name
    if stage == "analyze":
        lrf.analyze(model, data, settings=explore).save(folder / lrf.Analysis.file_name)
    elif stage == "explore":
        analysis = lrf.Analysis.load(folder / lrf.Analysis.file_name)
        space = lrf.explore(model, data, analysis, settings=explore)
        space.save(folder / lrf.DesignSpace.file_name)
    else:
        space = lrf.DesignSpace.load(folder / lrf.DesignSpace.file_name)
        lrf.decompose(model, data, [space], lrf.Goal(params_reduction=0.7))
    weights = sum(weight.numpy().nbytes for weight in model.weights) / _GIB
    peak = peak_bytes() / _GIB
    row: dict[str, Any] = {
        "model": name,
        "stage": stage,
        "weights_gib": round(weights, 2),
        "start_gib": round(start / _GIB, 2),
        "peak_gib": round(peak, 2),
        "beyond_gib": round(peak - start / _GIB, 2),
        "allowed_gib": round(MEMORY_GIB + CONSTANT_GIB + WEIGHTS * weights, 2),
        "seconds": round(time.perf_counter() - begun),
    }
    return row


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
