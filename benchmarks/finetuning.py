"""Fine-tuning once: how much of the accuracy comes back, and how fast factorized models train.

ResNet-20 on CIFAR-10. Trained alike, for as many epochs, images mirrored at random: the original,
plans with 60% and 72% of all parameters removed, and beside the first the same plan without
distillation, Tucker of the weights by one similarity threshold (arXiv 2510.00062) at the same size,
and Tucker at the ranks of variational Bayes. Then training steps are timed in turns.

Run: python -m benchmarks.finetuning --model resnet20-cifar10.keras --data cifar10/ --work out/ft
     [--epochs 5] [--seed 0] [--out benchmarks/results/finetuning.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one. Everything that
takes long is kept in `--work`: run it again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import machine, show, write
from lrf_core import progress
from lrf_core.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorly.decomposition  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import only, unpacked, winners  # noqa: E402
from benchmarks.resnet20 import EXPLORE, PlainTucker  # noqa: E402
from lrf_core import methods  # noqa: E402
from lrf_core.artifacts import Candidate, Cost  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402
from lrf_core.models.inventory import geometry_of  # noqa: E402
from lrf_core.models.measure import accuracy  # noqa: E402
from lrf_core.models.splice import splice  # noqa: E402
from lrf_core.models.trace import walk  # noqa: E402
from lrf_core.training.learner import make_learner  # noqa: E402
from lrf_core.training.objective import Objective, Targets  # noqa: E402
from lrf_core.training.schedule import resolved  # noqa: E402

# Shares of all parameters that are removed.
SMALLER, SMALLEST = 0.6, 0.72
# Each model is timed in so many turns of so many steps.
TURNS, STEPS = 5, 5

Made = tuple[keras.Model, str]


def main() -> None:
    arguments = parse()
    with progress.shown(), tempfile.TemporaryDirectory() as scratch:
        model = lrf.load_model(arguments.model)
        data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
        bench = Bench(model, data, arguments)
        rows, facts = bench.run()
    show("ResNet-20 on CIFAR-10, fine-tuned once, test images", rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/finetuning"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/finetuning.json"))
    return parser.parse_args()


class Bench:
    """One model, its data, and what is kept of a run that was interrupted."""

    def __init__(self, model: keras.Model, data: lrf.Data, arguments: argparse.Namespace) -> None:
        self.model, self.data, self.seed = model, data, arguments.seed
        self.work, self.out = arguments.work, arguments.out
        self.settings = lrf.FinetuneSpec(
            epochs=arguments.epochs,
            augmentation="flip",
            checkpoint=str(self.work),
        )
        self.work.mkdir(parents=True, exist_ok=True)
        self.original = accuracy(model, data.test)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        analysis = lrf.analyze(self.model, self.data, settings=EXPLORE, seed=self.seed)
        space = self.explored(analysis)
        small = self.kept("60", lambda: self.planned(space, SMALLER))
        smallest = self.kept("72", lambda: self.planned(space, SMALLEST))
        size = small[0].count_params()
        plain = self.kept("plain", lambda: self.plain(analysis, size))
        bayes = self.kept("vbmf", lambda: self.bayes(space))
        facts = {
            "settings": self.settings.decisive(),
            "original_accuracy": round(self.original, 2),
            "seed": self.seed,
            "machine": machine(),
        }
        rows: list[dict[str, Any]] = []
        without = self.settings.model_copy(update={"distillation": 0.0})
        for name, (network, layers), settings in (
            ("all compete, -60%", small, self.settings),
            ("all compete, -72%", smallest, self.settings),
            ("original", (self.model, ""), self.settings),
            ("all compete, -60%, no distillation", small, without),
            ("Tucker of the weights, one threshold", plain, self.settings),
            ("Tucker, ranks by VBMF", bayes, self.settings),
        ):
            rows.append(self.trained(name, network, layers, settings))
            write(self.out, rows, facts)
        facts["throughput"] = self.throughput({"-60%": small[0], "-72%": smallest[0]})
        write(self.out, rows, facts)
        return rows, facts

    def explored(self, analysis: lrf.Analysis) -> lrf.DesignSpace:
        file = self.work / lrf.DesignSpace.file_name
        if not file.exists():
            lrf.explore(self.model, self.data, analysis, settings=EXPLORE, seed=self.seed).save(
                file
            )
        return lrf.DesignSpace.load(file)

    def kept(self, name: str, make: Callable[[], Made]) -> Made:
        """A factorized model and the methods in it, made once."""
        folder = self.work / name
        if not (folder / "methods.txt").exists():
            network, layers = make()
            lrf.save_model(network, folder)
            (folder / "methods.txt").write_text(layers)
        return lrf.load_model(folder), (folder / "methods.txt").read_text()

    def planned(self, space: lrf.DesignSpace, removed: float) -> Made:
        plan, network = lrf.decompose(
            self.model,
            self.data,
            [space],
            lrf.Goal(params_reduction=removed),
            settings=lrf.DecomposeSpec(minimize="error"),
            seed=self.seed,
        )
        return network, winners(plan)

    def bayes(self, space: lrf.DesignSpace) -> Made:
        plan, network = lrf.decompose(
            self.model,
            self.data,
            [only(space, ("tucker",))],
            lrf.Goal(params_reduction=0.0),
            settings=lrf.DecomposeSpec(policy="vbmf"),
            seed=self.seed,
        )
        return network, winners(plan)

    def plain(self, analysis: lrf.Analysis, size: int) -> Made:
        """Tucker chains of truncated higher-order SVDs of the weights, of at most this size."""
        chosen = PlainTucker(self.model, self.data, analysis, self.seed).within(size)
        layers, records = dict(walk(self.model)), {r.name: r for r in analysis.eligible()}
        chains = {}
        for candidate, _ in chosen:
            (form,) = methods.get("tucker").forms(geometry_of(records[candidate.layer]))
            chains[candidate.layer] = form.chain(layers[candidate.layer], candidate.ranks)
        spliced = splice(self.model, chains)
        for candidate, kernel in chosen:
            links = [link for link in chains[candidate.layer] if link.weights]
            factors = tucker_factors(kernel, candidate)
            for link, factor in zip(links, factors, strict=True):
                link.kernel.assign(factor.reshape(link.kernel.shape))
            if layers[candidate.layer].use_bias:
                links[-1].bias.assign(layers[candidate.layer].bias)
        return spliced, f"{len(chosen)} tucker"

    def trained(
        self, name: str, network: keras.Model, layers: str, settings: lrf.FinetuneSpec
    ) -> dict[str, Any]:
        before = accuracy(network, self.data.test)
        tuned, record = lrf.finetune(
            network, self.model, self.data, settings=settings, seed=self.seed
        )
        after, cost, whole = accuracy(tuned, self.data.test), model_cost(network), self.cost
        return {
            "model": name,
            "layers": layers,
            "params": cost.params,
            "params_removed": f"{1 - cost.params / whole.params:.1%}",
            "flops": 2 * cost.macs,
            "flops_removed": f"{1 - cost.macs / whole.macs:.1%}",
            "before": round(before, 2),
            "after": round(after, 2),
            "drop": round(self.original - after, 2),
            "best_epoch": record.best_epoch,
            "seconds": round(record.seconds),
        }

    @property
    def cost(self) -> Cost:
        return model_cost(self.model)

    def throughput(self, plans: dict[str, keras.Model]) -> dict[str, Any]:
        """Training steps of the original and of the plans, timed in turns."""
        found = timed({"original": self.model, **plans}, self.data, self.settings)
        images = {name: round(size / seconds) for name, (size, seconds) in found.items()}
        return {
            "images_per_second": images,
            "times_the_original": {
                name: round(images[name] / images["original"], 2) for name in plans
            },
            "asked_at_least": {
                name: round(1 / (1 - (1 - model_cost(plan).macs / self.cost.macs) / 2), 2)
                for name, plan in plans.items()
            },
        }


def timed(
    models: dict[str, keras.Model], data: lrf.Data, settings: lrf.FinetuneSpec
) -> dict[str, tuple[int, float]]:
    """Batch size, and the median seconds of a training step, with cached answers of the teacher."""
    settings = resolved(settings, data.train.count, 3072, 1)
    size = settings.batch_size or 0
    samples, labels = data.train.take(np.arange(size)).arrays()
    classes = len(data.class_names)
    objective = Objective(settings.distillation, settings.temperature, 0.0, probabilities=False)
    targets = Targets(objective, classes, cached=True, teacher_probabilities=False)
    packed = targets.packed(np.asarray(labels), np.zeros((size, classes), np.float32))
    learners = {
        name: make_learner(model, model, targets, settings, 1000) for name, model in models.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(-1, TURNS):  # the first is a warm-up
        for name, learner in learners.items():
            for _ in range(STEPS):
                started = time.perf_counter()
                learner.trainer.train_on_batch(samples, packed)
                if turn >= 0:
                    seconds[name].append(time.perf_counter() - started)
    return {name: (size, float(np.median(times))) for name, times in seconds.items()}


def tucker_factors(kernel: np.ndarray, candidate: Candidate) -> list[np.ndarray]:
    """Kernels of a Tucker chain that amounts to a kernel `(..., Cin, Cout)` of these ranks."""
    modes = [kernel.ndim - 2, kernel.ndim - 1]
    (core, (first, last)), _ = tensorly.decomposition.partial_tucker(
        kernel, rank=list(candidate.ranks), modes=modes, init="svd"
    )
    before, after = [first], [last.T]
    if candidate.ranks[0] == kernel.shape[-2]:  # a full mode has no layer of its own
        core, before = np.einsum("...ab,ia->...ib", core, first), []
    if candidate.ranks[1] == kernel.shape[-1]:
        core, after = np.einsum("...ab,ob->...ao", core, last), []
    return [*before, core, *after]


if __name__ == "__main__":
    main()
