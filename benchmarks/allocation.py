"""Allocation: how fast the exact choice is, and what it is worth in accuracy.

Two tables. First the time of the knapsack on made-up design spaces of 100 layers with 1,000
candidates each, under mixes of limits. Then, with a model and images, ResNet-20 on CIFAR-10: test
accuracy without fine-tuning where the knapsack, a greedy choice and one similarity threshold
keep the same share of the parameters of the 3x3 convolutions, for which Tucker, CP and Tensor-Train
compete.
The greedy choice takes, again and again, the step that costs the least loss per parameter
saved; it is handed to the same code for building the model.

Run: python -m benchmarks.allocation [--model resnet20-cifar10.keras --data cifar10/]
     [--kept 0.8 0.6 0.5 0.4 0.28] [--methods tucker cp tensor_train] [--no-refit] [--seed 0]
     [--out benchmarks/results/allocation.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import machine, show, write
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import unpacked, winners  # noqa: E402
from lrf_core.artifacts import Candidate, Cost  # noqa: E402
from lrf_core.exploration.allocate import knapsack  # noqa: E402
from lrf_core.exploration.resources import (  # noqa: E402
    Indices,
    Layer,
    OptionTable,
    layers_of,
    options_of,
    undominated,
)
from lrf_core.measurement.measure import accuracy  # noqa: E402

# Measured apart, same weights, test images and layers, no fine-tuning: musco-pytorch 1.0.6 with
# 3-way CP, and Tucker with data-aware factors, knapsack and sensitivity as first tried.
PEERS: Mapping[str, Mapping[float, float]] = {
    "musco_cp3": {0.5: 87.0, 0.4: 82.7, 0.28: 50.0},
    "first_tucker": {0.8: 87.3, 0.6: 84.7, 0.5: 82.3, 0.4: 78.4},
}
MIXES: Mapping[str, tuple[str, dict[str, float]]] = {
    "params 80%": ("sensitivity", {"params": 0.8}),
    "params 50%": ("sensitivity", {"params": 0.5}),
    "params 20%": ("sensitivity", {"params": 0.2}),
    "params, MACs 50%": ("sensitivity", {"params": 0.5, "macs": 0.5}),
    "params, MACs, latency 60%": ("sensitivity", {"params": 0.6, "macs": 0.6, "latency": 0.6}),
    "least params, loss 5%": ("params", {"sensitivity": 0.05}),
    "least MACs, loss 5%, params 50%": ("macs", {"sensitivity": 0.05, "params": 0.5}),
}
LAYERS, CANDIDATES = 100, 1000


def main() -> None:
    arguments = parse()
    speed = speeds(arguments.seeds)
    show("The knapsack, 100 layers with 1,000 candidates each", speed, {"machine": machine()})
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"machine": machine(), "speed": speed}
    if arguments.model and arguments.data:
        with progress.shown(), tempfile.TemporaryDirectory() as scratch:
            model = lrf.load_model(arguments.model)
            data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
            rows, measured = accuracies(model, data, arguments)
        facts |= measured
        show("ResNet-20 on CIFAR-10, test accuracy without fine-tuning", rows, measured)
    write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="ResNet-20; without one, only times are measured")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--kept", type=float, nargs="*", default=[0.8, 0.6, 0.5, 0.4, 0.28])
    parser.add_argument("--methods", nargs="*", default=["tucker", "cp", "tensor_train"])
    parser.add_argument("--samples", type=int, default=512, help="calibration images")
    parser.add_argument("--refit", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="made-up design spaces")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/allocation.json"))
    return parser.parse_args()


def speeds(seeds: int) -> list[dict[str, Any]]:
    """Seconds for each mix of limits: the median and the longest over design spaces."""
    spaces = [made_up(seed) for seed in range(seeds)]
    rows = []
    for name, (minimize, shares) in MIXES.items():
        taken, left = [], []
        for found, layers, total in spaces:
            started = time.perf_counter()
            options = options_of(found, layers, total)
            opened = time.perf_counter() - started
            limits = {key: share * scale(options, key) for key, share in shares.items()}
            started = time.perf_counter()
            knapsack(options, limits, minimize)
            taken.append((time.perf_counter() - started, opened))
            amounts = options.amounts_of([minimize, *limits])
            left.append(len(undominated(amounts, options.owner)))
        chosen, opened_s = np.array(taken).T
        rows.append(
            {
                "limits": name,
                "minimized": minimize,
                "undominated": int(np.median(left)),
                "columns_s": round(float(np.median(opened_s)), 3),
                "knapsack_s": round(float(np.median(chosen)), 3),
                "longest_s": round(float(chosen.max()), 3),
            }
        )
    return rows


def scale(options: OptionTable, name: str) -> float:
    """What the whole model spends; of a loss, what the smallest plan does."""
    if name != "sensitivity":
        return options.before(name)
    return options.total(name, knapsack(options, {}, "params"))


def made_up(
    seed: int, layer_count: int | None = None, candidate_count: int | None = None
) -> tuple[list[Candidate], tuple[Layer, ...], Cost]:
    """Candidates whose loss falls with their size, by layers that differ by orders of magnitude."""
    draw = np.random.default_rng(seed)
    count, each = layer_count or LAYERS, candidate_count or CANDIDATES
    sizes = np.exp(draw.normal(10, 1.5, count))
    calls, harm = np.exp(draw.normal(5, 1, count)), np.exp(draw.normal(-3, 2, count))
    layers, candidates = [], []
    for index in range(count):
        name, size = f"layer{index}", int(sizes[index])
        layers.append(Layer(name, Cost(params=size, macs=int(size * calls[index])), 4, 1.0))
        for number, kept in enumerate(draw.uniform(0.02, 0.99, each)):
            spread, slower, worse = np.exp(draw.normal(0, 0.3, 3))
            loss = float(harm[index] * (1 - kept) ** 2 / np.sqrt(kept) * worse)
            params = max(int(size * kept), 1)
            candidates.append(
                Candidate(
                    layer=name,
                    method="made_up",
                    ranks=(number,),
                    cost=Cost(params=params, macs=int(params * calls[index] * spread)),
                    error=loss,
                    similarity=1 / (1 + loss),
                    sensitivity=loss,
                    latency_ms=float(0.1 + kept * slower),
                )
            )
    total = Cost(
        params=sum(layer.cost.params for layer in layers),
        macs=sum(layer.cost.macs for layer in layers),
    )
    return candidates, tuple(layers), total


def greedy(options: OptionTable, limit: float, loss: str = "sensitivity") -> Indices:
    """From the model as it is, the step of least loss per parameter saved, until it fits.

    Args:
        limit: parameters of the whole model.
    """
    params, losses = options.amounts["params"], options.amounts[loss]
    rows = options.unchanged()
    while options.total("params", rows) > limit:
        now = rows[options.owner]
        saved = params[now] - params
        price = np.where(saved > 0, (losses - losses[now]) / np.maximum(saved, 1), np.inf)
        step = int(price.argmin())
        if not np.isfinite(price[step]):
            raise SystemExit(f"{limit:,.0f} parameters are below the smallest plan")
        rows[options.owner[step]] = step
    return rows


def accuracies(
    model: keras.Model, data: lrf.Data, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    explored = lrf.ExploreSpec(
        methods=tuple(arguments.methods), layers=("*conv*",), samples=arguments.samples
    )
    original = accuracy(model, data.test)
    analysis = lrf.analyze(model, data, settings=explored, seed=arguments.seed)
    space = lrf.explore(model, data, analysis, settings=explored, seed=arguments.seed)
    total, convs = analysis.baseline.cost, sum(r.cost.params for r in analysis.eligible())
    options = options_of(space.candidates, layers_of(analysis.eligible()), total)

    def built(only: lrf.DesignSpace, limit: float, policy: str) -> tuple[lrf.Plan, float]:
        settings = lrf.DecomposeSpec(policy=policy, minimize="sensitivity", refit=arguments.refit)
        plan, compressed = lrf.decompose(
            model,
            data,
            [only],
            lrf.Goal(max_params=int(limit)),
            settings=settings,
            seed=arguments.seed,
        )
        return plan, accuracy(compressed, data.test)

    def by_greed(limit: float) -> tuple[lrf.Plan, float]:
        rows = greedy(options, limit)
        chosen = tuple(c.candidate for c in options.choices(rows) if c.candidate)
        # Only these candidates, and no room for a layer to stay: the plan is forced.
        forced = space.model_copy(update={"candidates": chosen})
        return built(forced, options.total("params", rows), "knapsack")

    policies: Mapping[str, Callable[[float], tuple[lrf.Plan, float]]] = {
        "knapsack": lambda limit: built(space, limit, "knapsack"),
        "greedy": by_greed,
        "threshold": lambda limit: built(space, limit, "threshold"),
    }
    rows: list[dict[str, Any]] = []
    facts = {
        "original": round(original, 2),
        "conv_params": convs,
        "candidates": len(space.candidates),
        "methods": list(arguments.methods),
        "refit": arguments.refit,
        "seed": arguments.seed,
    }
    for kept in arguments.kept:
        limit = total.params - convs * (1 - kept)
        found = {name: choose(limit) for name, choose in policies.items()}
        rows += [row(kept, name, plan, got, original) for name, (plan, got) in found.items()]
        write(arguments.out, rows, facts)  # the rest takes long: what is measured already is kept
    return rows, facts


def row(kept: float, policy: str, plan: lrf.Plan, got: float, original: float) -> dict[str, Any]:
    return {
        "conv_kept": kept,
        "policy": policy,
        "params": plan.after.params,
        "predicted_loss": round(plan.predicted_loss, 5),
        "accuracy": round(got, 2),
        "drop": round(original - got, 2),
        **{name: known.get(kept) for name, known in PEERS.items()},
        "layers_won": winners(plan),
    }


if __name__ == "__main__":
    main()
