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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.table import machine, show, write
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import decompose, only, unpacked, winners  # noqa: E402
from lrf_core.artifacts import Cost  # noqa: E402
from lrf_core.measurement.measure import accuracy  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402

GIB = 2**30
# 3x3 convolutions only, as the numbers it is compared with.
METHODS = ("tucker", "cp", "tensor_train")
EXPLORE = lrf.ExploreSpec(methods=METHODS, layers=("*conv*",), samples=512)


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
    for names in (METHODS, *((name,) for name in METHODS)):
        alone = only(space, names)
        for kept in arguments.kept:
            started = time.perf_counter()
            plan, compressed = decompose(
                model, data, alone, convs * (1 - kept), "sensitivity", seed
            )
            if names == METHODS:
                decomposed.append(time.perf_counter() - started)
            got = accuracy(compressed, data.test)
            name = "hybrid" if names == METHODS else f"{names[0]} alone"
            rows.append(row(name, plan.after, got, original, kept, winners(plan)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    removing = plain_tucker(model, data, analysis, seed)
    for kept in arguments.kept:
        plan, compressed = removing(convs * (1 - kept) / total.params)
        got = accuracy(compressed, data.test)
        rows.append(row("paper: Tucker, one threshold", plan.after, got, original, kept))
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


def plain_tucker(
    model: keras.Model, data: lrf.Data, analysis: lrf.Analysis, seed: int
) -> Callable[[float], tuple[lrf.Plan, keras.Model]]:
    """arXiv 2510.00062 with Tucker alone: ranks by one feature-map similarity threshold, factors
    of the weights by tensorly. Makes the plan that removes this share of the parameters."""
    settings = EXPLORE.model_copy(update={"methods": ("tucker",), "factors": "weights"})
    space = lrf.explore(model, data, analysis, settings=settings, seed=seed)

    def removing(share: float) -> tuple[lrf.Plan, keras.Model]:
        goal, policy = lrf.Goal(params_reduction=share), lrf.DecomposeSpec(policy="threshold")
        return lrf.decompose(model, data, [space], goal, settings=policy, seed=seed)

    return removing


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
