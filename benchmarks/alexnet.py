"""A convolutional and dense network on CIFAR-10: the paper's averages, by hybrid and by one method.

The convolutions lose 82.5% of their parameters, the dense layers 92.7% (what arXiv 2510.00062
reports on average for hybrids). First each kind on its own, without fine-tuning, by every method
alone and by all in competition; then both kinds by the hybrid, fine-tuned.

Run: python -m benchmarks.alexnet --model alexnet-cifar10.keras --data cifar10/
     [--epochs 3] [--conv 0.825] [--dense 0.927] [--seed 0] [--out benchmarks/results/alexnet.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import time
from pathlib import Path

from benchmarks.table import Row, machine, show, write
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import decompose, only, unpacked, winners  # noqa: E402
from lrf_core.measurement.measure import accuracy  # noqa: E402

METHODS = {"conv": ("tucker", "cp", "tensor_train"), "dense": ("svd", "qr", "t3f")}
LAYERS = {"conv": ("conv*",), "dense": ("fc*", "logits*")}


def main() -> None:
    arguments = parse()
    with progress.shown(), tempfile.TemporaryDirectory() as scratch:
        model = lrf.load_model(arguments.model)
        data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
        rows, facts = run(model, data, arguments)
    show("Convolutions and dense layers on CIFAR-10, test images", rows, facts)
    write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--conv", type=float, default=0.825, help="share of parameters to remove")
    parser.add_argument("--dense", type=float, default=0.927, help="share of parameters to remove")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/alexnet.json"))
    return parser.parse_args()


def run(model: keras.Model, data: lrf.Data, arguments: argparse.Namespace) -> tuple[list[Row], Row]:
    seed, original = arguments.seed, accuracy(model, data.test)
    shares = {"conv": arguments.conv, "dense": arguments.dense}
    whole = params(model)
    rows = [row("original", whole, whole, original, original)]
    seconds = {}
    for kind, names in METHODS.items():
        started = time.perf_counter()
        space = explored(model, data, kind, seed)
        seconds[kind] = round(time.perf_counter() - started, 1)
        for chosen in (*((name,) for name in names), names):
            name = "hybrid" if chosen == names else f"{chosen[0]} alone"
            plan, smaller = decompose(
                model, data, only(space, chosen), whole[kind] * shares[kind], "sensitivity", seed
            )
            got, left = accuracy(smaller, data.test), params(smaller)
            rows.append(row(f"{kind}: {name}", left, whole, got, original, winners(plan)))
    rows += both(model, data, arguments, original)
    return rows, {"explore_s": seconds, "seed": seed, "machine": machine()}


def both(
    model: keras.Model, data: lrf.Data, arguments: argparse.Namespace, original: float
) -> list[Row]:
    """The dense layers behind the compressed convolutions, then everything fine-tuned, once."""
    seed, whole, smaller, won = arguments.seed, params(model), model, []
    for kind, share in (("conv", arguments.conv), ("dense", arguments.dense)):
        space = explored(smaller, data, kind, seed)
        plan, smaller = decompose(smaller, data, space, whole[kind] * share, "error", seed)
        won.append(winners(plan))
    before, left = accuracy(smaller, data.test), params(smaller)
    settings = lrf.FinetuneSpec(epochs=arguments.epochs)
    trained, _ = lrf.finetune(smaller, model, data, settings=settings, seed=seed)
    longer, _ = lrf.finetune(model, model, data, settings=settings, seed=seed)
    tuned = f"fine-tuned {arguments.epochs} epochs"
    return [
        row("both: hybrid", left, whole, before, original, "; ".join(won)),
        row(f"both: hybrid, {tuned}", left, whole, accuracy(trained, data.test), original),
        row(f"original, {tuned}", whole, whole, accuracy(longer, data.test), original),
    ]


def explored(model: keras.Model, data: lrf.Data, kind: str, seed: int) -> lrf.DesignSpace:
    settings = lrf.ExploreSpec(methods=METHODS[kind], layers=LAYERS[kind])
    analysis = lrf.analyze(model, data, settings=settings, seed=seed)
    return lrf.explore(model, data, analysis, settings=settings, seed=seed)


def params(model: keras.Model) -> dict[str, int]:
    """Parameters of each kind of layer, factorized or not."""

    def matches(layer: keras.Layer, kind: str) -> bool:
        return any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in LAYERS[kind])

    return {
        kind: sum(layer.count_params() for layer in model.layers if matches(layer, kind))
        for kind in LAYERS
    }


def row(
    name: str,
    left: dict[str, int],
    whole: dict[str, int],
    got: float,
    original: float,
    won: str = "",
) -> Row:
    return {
        "model": name,
        "layers_won": won,
        "conv_params": left["conv"],
        "conv_removed_%": round(100 * (1 - left["conv"] / whole["conv"]), 1),
        "dense_params": left["dense"],
        "dense_removed_%": round(100 * (1 - left["dense"] / whole["dense"]), 1),
        "accuracy": round(got, 2),
        "drop": round(original - got, 2),
    }


if __name__ == "__main__":
    main()
