"""ResNet-20 on CIFAR-10: accuracy against the share of convolution parameters kept.

Tucker, CP and Tensor-Train compete for the 3x3 convolutions (hybrid), calibrated on 512 training
images, without fine-tuning; beside them each method alone, the paper's policy (one similarity
threshold, Tucker factors of the weights) at the same sizes, and the fine-tuned model beside the
original fine-tuned for as many epochs.

Run: python -m benchmarks.resnet20 --model resnet20-cifar10.keras --data cifar10/
     [--epochs 3] [--kept 0.8 0.6 0.5 0.4 0.28] [--seed 0] [--out benchmarks/results/resnet20.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import machine, show, write
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorly.decomposition  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import decompose, only, unpacked, winners  # noqa: E402
from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Candidate, Cost, LayerRecord  # noqa: E402
from lrf_core.calibration import collect_moments  # noqa: E402
from lrf_core.exploration.allocate import (  # noqa: E402
    threshold,
    thresholds_within,
    total_after,
)
from lrf_core.exploration.resources import layers_of, options_of  # noqa: E402
from lrf_core.measurement.measure import accuracy  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402
from lrf_core.models.inventory import geometry_of  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402
from lrf_core.models.trace import walk  # noqa: E402
from lrf_core.similarity import nmse  # noqa: E402

GIB = 2**30
# 3x3 convolutions only, as the numbers it is compared with.
EXPLORE = lrf.ExploreSpec(methods=("tucker", "cp", "tensor_train"), layers=("*conv*",), samples=512)


def main() -> None:
    arguments = parse()
    with progress.shown(), tempfile.TemporaryDirectory() as scratch:
        model = lrf.load_model(arguments.model)
        data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
        rows, facts = run(model, data, arguments)
    show("ResNet-20 on CIFAR-10, test images", rows, facts)
    write(arguments.out, rows, facts)


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
    for names in (EXPLORE.methods, *((name,) for name in EXPLORE.methods)):
        alone = only(space, names)
        for kept in arguments.kept:
            started = time.perf_counter()
            plan, compressed = decompose(
                model, data, alone, convs * (1 - kept), "sensitivity", seed
            )
            if names == EXPLORE.methods:
                decomposed.append(time.perf_counter() - started)
            got = accuracy(compressed, data.test)
            name = "hybrid" if names == EXPLORE.methods else f"{names[0]} alone"
            rows.append(row(name, plan.after, got, original, kept, winners(plan)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    for kept, cost, got in baseline(model, data, analysis, arguments.kept, seed):
        rows.append(row("paper: Tucker, one threshold", cost, got, original, kept))
    facts = {
        "conv_params": convs,
        "candidates": len(space.candidates),
        "explore_s": round(explored, 1),
        "decompose_s": {
            str(kept): round(seconds, 1)
            for kept, seconds in zip(arguments.kept, decomposed, strict=True)
        },
        "peak_gib": round(peak, 2),
        "calibration_images": EXPLORE.samples,
        "seed": seed,
        "machine": machine(),
    }
    write(arguments.out, rows, facts)  # training takes long: what is measured already is kept
    if arguments.epochs:
        rows += finetuned(model, data, space, arguments, original, convs)
    return rows, facts


def finetuned(
    model: keras.Model,
    data: lrf.Data,
    space: lrf.DesignSpace,
    arguments: argparse.Namespace,
    original: float,
    convs: int,
) -> list[dict[str, Any]]:
    """Factorized models, and the original, trained alike."""
    settings = lrf.FinetuneSpec(epochs=arguments.epochs)
    seed, epochs = arguments.seed, f"fine-tuned {arguments.epochs} epochs"
    trained, record = lrf.finetune(model, model, data, settings=settings, seed=seed)
    got = accuracy(trained, data.test)
    cost = model_cost(model)
    rows = [row(f"original, {epochs}", cost, got, original, seconds=record.seconds)]
    for kept in arguments.finetuned:
        plan, compressed = decompose(model, data, space, convs * (1 - kept), "error", seed)
        trained, record = lrf.finetune(compressed, model, data, settings=settings, seed=seed)
        got, name = accuracy(trained, data.test), f"hybrid, {epochs}"
        rows.append(row(name, plan.after, got, original, kept, winners(plan), record.seconds))
    return rows


def baseline(
    model: keras.Model, data: lrf.Data, analysis: lrf.Analysis, kept: list[float], seed: int
) -> list[tuple[float, Cost, float]]:
    """arXiv 2510.00062 with Tucker alone: ranks by one feature-map similarity threshold, factors
    of the weights (truncated higher-order SVD by tensorly)."""
    plain = PlainTucker(model, data, analysis, seed)
    convs = sum(record.cost.params for record in analysis.eligible())
    results = []
    for share in kept:
        chosen = plain.within(plain.total.params - convs * (1 - share))
        kernels = {candidate.layer: kernel for candidate, kernel in chosen}
        copy = splice(model, {})
        for path, layer in walk(copy):
            if path in kernels:
                layer.kernel.assign(kernels[path])
        cost = total_after(plain.choices, plain.total)
        results.append((share, cost, accuracy(copy, data.test)))
    return results


class PlainTucker:
    """Truncations of the layers' weights, chosen by one similarity threshold for all layers.

    Attributes:
        total: of the whole model as it is.
        choices: the last that `within` made.
    """

    def __init__(
        self, model: keras.Model, data: lrf.Data, analysis: lrf.Analysis, seed: int
    ) -> None:
        samples, _ = data.train.sample(EXPLORE.samples, seed).arrays()
        records = {record.name: record for record in analysis.eligible()}
        layers = {path: layer for path, layer in walk(model) if path in records}
        moments = collect_moments(model, layers, samples, seed=seed)
        self.total, self.choices = analysis.baseline.cost, ()
        self._kernels: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}
        candidates = []
        for name, record in records.items():
            original = moments[name].rows @ flat(layers[name].kernel)
            for ranks, kernel, cost in plain_tucker(record, layers[name]):
                self._kernels[name, ranks] = kernel
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
        self._options = options_of(candidates, layers_of(records.values()), self.total)

    def within(self, params: float) -> list[tuple[Candidate, np.ndarray]]:
        """The candidates that keep the whole model to so many parameters, and their kernels."""
        highest = thresholds_within(self._options, {"params": params})[0]
        self.choices = self._options.choices(threshold(self._options, highest))
        chosen = [choice.candidate for choice in self.choices if choice.candidate]
        return [(found, self._kernels[found.layer, found.ranks]) for found in chosen]


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
    won: str = "",
    seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "model": name,
        "layers_won": won,
        "conv_kept": kept,
        "params": cost.params,
        "macs": cost.macs,
        "accuracy": round(got, 2),
        "drop": round(original - got, 2),
        "finetune_s": None if seconds is None else round(seconds),
    }


if __name__ == "__main__":
    main()
