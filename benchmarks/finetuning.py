"""Fine-tuning once: how much of the accuracy comes back.

ResNet-20 on CIFAR-10. Trained alike, for as many epochs, images mirrored at random: the original,
plans with 60% and 72% of all parameters removed and one with 72.2% of the multiply-adds removed
(the mark of HALOC, arXiv 2301.09422), and beside the first the same plan without distillation,
Tucker of the weights by one similarity threshold (arXiv 2510.00062) at the same size, and Tucker at
the ranks of variational Bayes. With --long, HALOC's mark and the original for so many epochs, too.

Run: python -m benchmarks.finetuning --model resnet20-cifar10.keras --data cifar10/ --work out/ft
     [--epochs 5] [--long 60] [--seed 0] [--out benchmarks/results/finetuning.json]
`--data` is a folder of class folders under train/ and test/, or a .tar.gz of one. Everything that
takes long is kept in `--work`: run it again after an interruption and it goes on.

To train on another machine, with a GPU and Keras' JAX backend say: run it with --jobs, which stops
before training, run `python -m lrf_core.stages.finetune_worker JOB` there for each folder in
WORK/jobs (the data at the same path), bring the folders back, and run it again without --jobs.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import machine, show, write
from lrf_core.console import progress
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

import lrf_core as lrf  # noqa: E402
from benchmarks.competition import only, unpacked, winners  # noqa: E402
from benchmarks.resnet20 import EXPLORE, plain_tucker  # noqa: E402
from lrf_core.artifacts import Cost  # noqa: E402
from lrf_core.measurement.measure import accuracy  # noqa: E402
from lrf_core.models.compiled import Compiled  # noqa: E402
from lrf_core.models.cost import model_cost  # noqa: E402
from lrf_core.training.job import Job, read_result  # noqa: E402

Made = tuple[keras.Model, str]


@dataclass(frozen=True)
class Row:
    """One model that is trained: its name, the methods in it, and how."""

    name: str
    network: keras.Model
    layers: str
    settings: lrf.FinetuneSpec

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower())


def main() -> None:
    arguments = parse()
    with progress.shown(), tempfile.TemporaryDirectory() as scratch:
        model = lrf.load_model(arguments.model)
        data = lrf.open_data(str(unpacked(arguments.data, Path(scratch))), model)
        bench = Bench(model, data, arguments)
        if arguments.jobs:
            bench.write_jobs()
            return
        rows, facts = bench.run()
    show("ResNet-20 on CIFAR-10, fine-tuned once, test images", rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/finetuning"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--long", type=int, default=0)
    parser.add_argument("--jobs", action="store_true")
    parser.add_argument("--trained-on", help="what trained the jobs, for the facts")
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
        self.long = arguments.long
        self.trained_on = arguments.trained_on or machine()
        self.work.mkdir(parents=True, exist_ok=True)
        self.original = accuracy(model, data.test)

    def run(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        facts = {
            "settings": self.settings.decisive(),
            "original_accuracy": round(self.original, 2),
            "seed": self.seed,
            "trained_on": self.trained_on,
        }
        rows: list[dict[str, Any]] = []
        for row in self.rows():
            rows.append(self.trained(row))
            write(self.out, rows, facts)
        return rows, facts

    def rows(self) -> list[Row]:
        analysis = lrf.analyze(self.model, self.data, settings=EXPLORE, seed=self.seed)
        space = self.explored(analysis)
        small, small_layers = self.kept(
            "60", lambda: self.planned(space, lrf.Goal(params_reduction=0.6))
        )
        smallest = self.kept("72", lambda: self.planned(space, lrf.Goal(params_reduction=0.72)))
        mark = self.kept("flops", lambda: self.planned(space, lrf.Goal(macs_reduction=0.722)))
        plain = self.kept("plain", lambda: self.plain(analysis, small.count_params()))
        bayes = self.kept("vbmf", lambda: self.bayes(space))
        without = self.settings.model_copy(update={"distillation": 0.0})
        rows = [
            Row("all compete, -60%", small, small_layers, self.settings),
            Row("all compete, -72%", *smallest, self.settings),
            Row("all compete, -72.2% FLOPs", *mark, self.settings),
            Row("original", self.model, "", self.settings),
            Row("all compete, -60%, no distillation", small, small_layers, without),
            Row("Tucker of the weights, one threshold", *plain, self.settings),
            Row("Tucker, ranks by VBMF", *bayes, self.settings),
        ]
        if self.long:
            settings = self.settings.model_copy(update={"epochs": self.long})
            name = f"{self.long} epochs"
            rows.append(Row(f"all compete, -72.2% FLOPs, {name}", *mark, settings))
            rows.append(Row(f"original, {name}", self.model, "", settings))
        return rows

    def write_jobs(self) -> None:
        for row in self.rows():
            job = Job.of(row.network, self.model, self.data, row.settings, self.seed, Compiled())
            job.write(self.work / "jobs" / row.folder, row.network, self.model)

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

    def planned(self, space: lrf.DesignSpace, goal: lrf.Goal) -> Made:
        plan, network = lrf.decompose(
            self.model,
            self.data,
            [space],
            goal,
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
        """Tucker chains of the weights alone, of at most this size."""
        removing = plain_tucker(self.model, self.data, analysis, self.seed)
        plan, network = removing(1 - size / self.cost.params)
        return network, winners(plan)

    def trained(self, row: Row) -> dict[str, Any]:
        before = accuracy(row.network, self.data.test)
        tuned, record = self.tuned(row)
        after, cost, whole = accuracy(tuned, self.data.test), model_cost(tuned), self.cost
        return {
            "model": row.name,
            "layers": row.layers,
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

    def tuned(self, row: Row) -> tuple[keras.Model, lrf.FinetuneRecord]:
        """Trained now, unless another machine has done it."""
        job = self.work / "jobs" / row.folder
        if (job / lrf.FinetuneRecord.file_name).exists():
            return read_result(job)
        return lrf.finetune(
            row.network, self.model, self.data, settings=row.settings, seed=self.seed
        )

    @property
    def cost(self) -> Cost:
        return model_cost(self.model)


if __name__ == "__main__":
    main()
