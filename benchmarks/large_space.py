"""A large design space: what reading, joining and allocating 200 layers x 10,000 candidates takes.

The candidates are made up (see `benchmarks.allocation`) and lie in as many files as there are
shards. A process of its own reads and joins them, makes the columns of the knapsack, and solves it
for half of the parameters, then of the parameters and the multiply-adds. `memory_gib` is the most
that process has held until then, `seconds` what each step took on one core.

Run: python -m benchmarks.large_space [--layers 200] [--candidates 10000] [--shards 4]
     [--out benchmarks/results/large_space.json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import allocation
from benchmarks.table import Row, machine, show, write
from lrf_core.artifacts import Candidate, Cost, DesignSpace, Lineage
from lrf_core.exploration.allocate import knapsack
from lrf_core.exploration.merge import check_whole, merged
from lrf_core.exploration.resources import Layer, OptionTable, options_of


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        files, layers, total = written(arguments, Path(folder))
        # A new process: what was held while the files were written does not count.
        with multiprocessing.get_context("spawn").Pool(1) as one:
            rows = one.apply(measured, (files, layers, total))
        size = sum(file.stat().st_size for file in files)
    facts = {
        "machine": machine(),
        "layers": arguments.layers,
        "candidates": arguments.layers * arguments.candidates,
        "shards": arguments.shards,
        "files_mib": round(size / 2**20, 1),
    }
    show("A large design space", rows, facts)
    write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--candidates", type=int, default=10_000, help="of each layer")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/large_space.json"))
    return parser.parse_args()


def written(
    arguments: argparse.Namespace, folder: Path
) -> tuple[list[Path], tuple[Layer, ...], Cost]:
    """The files of all shards, and the layers with the cost of all of them."""
    candidates, layers, total = allocation.made_up(0, arguments.layers, arguments.candidates)
    names = tuple(layer.name for layer in layers)
    by_layer: dict[str, list[Candidate]] = {name: [] for name in names}
    for candidate in candidates:
        by_layer[candidate.layer].append(candidate)
    files = []
    for number in range(arguments.shards):
        own = names[number :: arguments.shards]
        shard = DesignSpace(
            lineage=Lineage(inputs={}, settings={"shard": f"{number + 1}/{arguments.shards}"}),
            model_digest="made up",
            calibration_digest="made up",
            similarity="nmse",
            layers=own,
            eligible=names,
            candidates=tuple(candidate for name in own for candidate in by_layer[name]),
        )
        files.append(shard.save(folder / f"design_space-{number + 1}.parquet"))
    return files, layers, total


def measured(files: Sequence[Path], layers: tuple[Layer, ...], total: Cost) -> list[Row]:
    """One row for each step."""
    rows: list[Row] = [{"step": "begin", "seconds": 0.0, "memory_gib": memory_gib()}]

    def step(name: str, work: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = work()
        seconds = round(time.process_time() - started, 1)
        rows.append({"step": name, "seconds": seconds, "memory_gib": memory_gib()})
        return result

    spaces = step("read", lambda: [DesignSpace.load(file) for file in files])
    space = step("join", lambda: merged(spaces))
    check_whole(space)
    options: OptionTable = step("columns", lambda: options_of(space.candidates, layers, total))
    for names in (("params",), ("params", "macs")):
        limits = {name: options.before(name) / 2 for name in names}
        half = f"half of {' and '.join(names)}"
        plan = step(half, partial(knapsack, options, limits, "sensitivity"))
        if any(options.total(name, plan) > limits[name] for name in names):
            raise SystemExit(f"the plan for {half} spends more")
    return rows


def memory_gib() -> float:
    """The most that this process has held so far; what its parent held does not count."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 2**20, 2)


if __name__ == "__main__":
    main()
