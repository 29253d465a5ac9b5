"""ResNet-20 on CIFAR-10: accuracy against the share of convolution parameters kept.

Tucker on the 3x3 convolutions, calibrated on 512 training images; beside it the paper's policy
(one similarity threshold, Tucker factors of the weights) at the same sizes, and the fine-tuned
model beside the original fine-tuned for as many epochs.

Run: python -m benchmarks.resnet20 --model resnet20-cifar10.keras --data cifar10/
     [--epochs 3] [--kept 0.8 0.6 0.5 0.4 0.28] [--seed 0] [--out benchmarks/results/resnet20.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table

from lrf_core import progress
from lrf_core.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorly.decomposition  # noqa: E402

import lrf_core as lrf  # noqa: E402
from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Candidate, Cost, LayerRecord  # noqa: E402
from lrf_core.calibration import collect_moments  # noqa: E402
from lrf_core.exploration.allocate import (  # noqa: E402
    Budget,
    options_by_layer,
    threshold_for_budget,
    total_after,
)
from lrf_core.exploration.similarity import nmse  # noqa: E402
from lrf_core.models.inventory import geometry_of  # noqa: E402
from lrf_core.models.measure import accuracy  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402
from lrf_core.models.trace import walk  # noqa: E402

GIB = 2**30
# 3x3 convolutions only, as the numbers it is compared with.
EXPLORE = lrf.ExploreSpec(methods=("tucker",), layers=("*conv*",), samples=512)


def main() -> None:
    arguments = parse()
    with progress.shown(), tempfile.TemporaryDirectory() as scratch:
        model = lrf.load_model(arguments.model)
        data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
        rows, facts = run(model, data, arguments)
    show(rows, facts)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kept", type=float, nargs="*", default=[0.8, 0.6, 0.5, 0.4, 0.28])
    parser.add_argument("--finetuned", type=float, nargs="*", default=[0.5])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/resnet20.json"))
    return parser.parse_args()


def unpacked(data: Path, scratch: Path) -> Path:
    """The folder of images, taken out of its archive if it is in one."""
    if data.is_dir():
        return data
    with tarfile.open(data) as archive:
        archive.extractall(scratch, filter="data")
    return scratch


def run(
    model: keras.Model, data: lrf.Data, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    seed = arguments.seed
    original = accuracy(model, data.test)
    analysis = lrf.analyze(model, data, settings=EXPLORE, seed=seed)
    convs = sum(record.cost.params for record in analysis.eligible())
    total = analysis.baseline.cost
    rows = [row("original", total, original, original)]

    started = time.perf_counter()
    space = lrf.explore(model, data, analysis, settings=EXPLORE, seed=seed)
    explored = time.perf_counter() - started
    decomposed: list[float] = []
    factorized = {}
    for minimize, shares in (("sensitivity", arguments.kept), ("error", arguments.finetuned)):
        settings = lrf.DecomposeSpec(minimize=minimize)
        for kept in shares:
            started = time.perf_counter()
            goal = lrf.Goal(params_reduction=convs * (1 - kept) / total.params)
            plan, factorized[kept] = lrf.decompose(
                model, data, [space], goal, settings=settings, seed=seed
            )
            decomposed.append(time.perf_counter() - started)
            got = accuracy(factorized[kept], data.test)
            rows.append(row(f"lrf Tucker, least {minimize}", plan.after, got, original, kept))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    for kept, cost, got in baseline(model, data, analysis, arguments.kept, seed):
        rows.append(row("paper: Tucker, one threshold", cost, got, original, kept))
    if arguments.epochs:
        rows += finetuned(model, data, factorized, arguments, original, total)
    facts = {
        "conv_params": convs,
        "candidates": len(space.candidates),
        "explore_s": round(explored, 1),
        "decompose_s": round(max(decomposed), 1),
        "peak_gib": round(peak, 2),
        "calibration_images": EXPLORE.samples,
        "seed": seed,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
    }
    return rows, facts


def finetuned(
    model: keras.Model,
    data: lrf.Data,
    factorized: dict[float, keras.Model],
    arguments: argparse.Namespace,
    original: float,
    total: Cost,
) -> list[dict[str, Any]]:
    """The factorized models, and the original, trained alike."""
    settings = lrf.FinetuneSpec(epochs=arguments.epochs)
    rows = []
    trained, record = lrf.finetune(model, model, data, settings=settings, seed=arguments.seed)
    name = f"original, fine-tuned {arguments.epochs} epochs"
    rows.append(row(name, total, accuracy(trained, data.test), original, None, record.seconds))
    for kept in arguments.finetuned:
        trained, record = lrf.finetune(
            factorized[kept], model, data, settings=settings, seed=arguments.seed
        )
        name = f"lrf, fine-tuned {arguments.epochs} epochs"
        cost = lrf.analyze(trained, data, settings=EXPLORE).baseline.cost
        got = accuracy(trained, data.test)
        rows.append(row(name, cost, got, original, kept, record.seconds))
    return rows


def baseline(
    model: keras.Model, data: lrf.Data, analysis: lrf.Analysis, kept: list[float], seed: int
) -> list[tuple[float, Cost, float]]:
    """arXiv 2510.00062 with Tucker alone: ranks by one feature-map similarity threshold, factors
    of the weights (truncated higher-order SVD by tensorly)."""
    samples, _ = data.train.sample(EXPLORE.samples, seed).arrays()
    records = {record.name: record for record in analysis.eligible()}
    layers = {path: layer for path, layer in walk(model) if path in records}
    moments = collect_moments(model, layers, samples, seed=seed)
    kernels: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
    candidates = []
    for name, record in records.items():
        original = moments[name].rows @ flat(layers[name].kernel)
        for ranks, kernel, cost in plain_tucker(record, layers[name]):
            kernels[name, ranks] = kernel
            similarity = nmse(original, moments[name].rows @ flat(kernel))
            candidates.append(
                Candidate(
                    layer=name,
                    method="tucker",
                    ranks=ranks,
                    cost=cost,
                    error=1 - similarity,
                    similarity=similarity,
                    sensitivity=1 - similarity,
                )
            )
    options = options_by_layer(candidates, {n: r.cost for n, r in records.items()})
    convs, total = sum(r.cost.params for r in records.values()), analysis.baseline.cost
    results = []
    for share in kept:
        budget = Budget(params=total.params - convs * (1 - share))
        choices = threshold_for_budget(options, total, budget)
        copy = splice(model, {})
        for path, layer in walk(copy):
            chosen = next((c.candidate for c in choices if c.layer == path), None)
            if chosen:
                layer.kernel.assign(kernels[path, chosen.ranks])
        results.append((share, total_after(choices, total), accuracy(copy, data.test)))
    return results


def flat(kernel: Any) -> np.ndarray:
    return np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])


def plain_tucker(
    record: LayerRecord, layer: keras.Layer
) -> list[tuple[tuple[int, ...], np.ndarray, Cost]]:
    """Every truncation of the kernel's higher-order SVD that is smaller than the layer."""
    geometry = geometry_of(record)
    (form,) = methods.get("tucker").forms(geometry)
    kernel = np.asarray(layer.kernel, np.float64)
    modes = [kernel.ndim - 2, kernel.ndim - 1]
    (core, (first, last)), _ = tensorly.decomposition.partial_tucker(
        kernel, rank=list(kernel.shape[-2:]), modes=modes, init="svd", n_iter_max=1
    )
    found = []
    for ranks in form.candidate_ranks(EXPLORE.ranks_per_mode):
        cost = form.cost(ranks)
        if cost.params < geometry.cost.params:
            r1, r2 = ranks
            small = core[..., :r1, :r2]
            rebuilt = np.einsum("...ab,ia,ob->...io", small, first[:, :r1], last[:, :r2])
            found.append((ranks, rebuilt, cost))
    return found


def row(
    name: str,
    cost: Cost,
    got: float,
    original: float,
    kept: float | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "model": name,
        "conv_kept": kept,
        "params": cost.params,
        "macs": cost.macs,
        "accuracy": round(got, 2),
        "drop": round(original - got, 2),
        "finetune_s": None if seconds is None else round(seconds),
    }


def show(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    table = rich.table.Table(title="ResNet-20 on CIFAR-10, test images")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "model" else "right")
    for values in rows:
        table.add_row(*(shown(value) for value in values.values()))
    console = rich.console.Console(width=110)
    console.print(table)
    console.print(facts)


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
