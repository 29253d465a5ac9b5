"""kill -9 in the middle of an exploration, ten times: what is done twice, and is it the same?

`lrf explore` runs as a process of its own on a ResNet-20 (or a MobileNet) with random weights and
random images. It is killed at random moments that are spread over the scoring: after so many scores
and a random part of a second. Each time it is started again with the same command. In the end its
design space is compared with that of a run that nobody disturbed. A score is that of one layer by
one method; `again` are those that were begun before a kill and had to be begun again, and `lost_s`
the seconds that had gone into them. `of_a_layer` is the same in layers: a third where a layer has
three methods.

Run: python -m benchmarks.interrupted
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import table
from lrf_core.console.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from lrf_core.artifacts import Analysis, DesignSpace  # noqa: E402
from lrf_core.models.load import save_model  # noqa: E402
from lrf_core.run.outputs import Outputs  # noqa: E402

ROOT = Path(__file__).parents[1]
CLASSES, IMAGES = 10, 160
# Kills come before this share of the scores, so that there is something left to kill.
LAST_KILL = 0.9
# A kill comes up to so many seconds after the score it waits for.
LONGEST_WAIT_S = 1.0


def resnet20() -> keras.Model:
    """20 layers of 16, 32 and 64 channels, for images of 32 x 32 (He et al. 2016)."""
    layers = keras.layers

    def convolved(x: object, filters: int, strides: int, name: str) -> object:
        x = layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(convolved(inputs, 16, 1, "first"))
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            strides = 2 if stage and not block else 1
            name = f"stage{stage}_block{block}"
            y = layers.ReLU()(convolved(x, filters, strides, f"{name}_a"))
            y = convolved(y, filters, 1, f"{name}_b")
            shortcut = x
            if strides == 2:
                shortcut = layers.AveragePooling2D(2)(x)
                shortcut = layers.Concatenate()([shortcut, layers.Rescaling(0.0)(shortcut)])
            x = layers.ReLU()(layers.Add()([shortcut, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(x), name="resnet20")


def mobilenet() -> keras.Model:
    """Of keras.applications, half as wide, for images of 64 x 64."""
    return keras.applications.MobileNet((64, 64, 3), alpha=0.5, weights=None, classes=CLASSES)


MODELS: dict[str, Callable[[], keras.Model]] = {"resnet20": resnet20, "mobilenet": mobilenet}


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        rows, facts = measure(Path(folder), arguments)
    table.show("kill -9 during lrf explore", [printed(row) for row in rows], facts)
    table.write(arguments.out, rows, facts)
    if not facts["same_design_space"] or facts["most_again"] > facts["threads"]:
        raise SystemExit("not what an undisturbed run gives, or too much was done again")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--methods", help="comma-separated; default: all")
    parser.add_argument("--kills", type=int, default=10, help="default: 10")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: 0")
    parser.add_argument("--out", type=Path, default=table.RESULTS / "interrupted.json")
    return parser.parse_args()


def printed(row: table.Row) -> table.Row:
    return {**row, "again": ", ".join(row["again"]) or "-"}


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[table.Row], table.Row]:
    """Rows of the kills, and what came out in the end."""
    model = prepared(folder, arguments.model)
    undisturbed, killed = (Outputs(folder / name) for name in ("undisturbed", "killed"))
    chosen = ["--set", f"explore.methods=[{arguments.methods}]"] if arguments.methods else []
    given = [str(folder / "model.keras"), "--data", str(folder / "data.npz"), *chosen]
    finished(["analyze", *given, "--out", str(undisturbed.folder)])
    killed.folder.mkdir()
    shutil.copy(undisturbed.analysis, killed.analysis)
    methods_of = {
        layer.name: len(layer.methods) for layer in Analysis.load(killed.analysis).eligible()
    }

    exploring = ["explore", *given, "--samples", "128"]
    finished([*exploring, "--out", str(undisturbed.folder)])
    again = [*exploring, "--out", str(killed.folder)]
    kills = moments(sum(methods_of.values()), arguments.kills, arguments.seed)
    runs: list[Run] = []
    for after, wait_s in kills:
        print(f"kill -9 {wait_s:.2f} s after score {after} ...", file=sys.stderr)
        runs.append(cut_off(again, after - count_scored(runs), wait_s))
    last = finished(again)
    rows = [
        row_of(number, kill, runs[number:], last, methods_of) for number, kill in enumerate(kills)
    ]
    spaces = [DesignSpace.load(outputs.design_space) for outputs in (undisturbed, killed)]
    facts = {
        "model": model.name,
        "layers": len(spaces[0].layers),
        "scores": sum(methods_of.values()),
        "candidates": len(spaces[0].candidates),
        "kills": sum(run.killed for run in runs),
        "same_design_space": without_time(spaces[0]) == without_time(spaces[1]),
        "begun": sum(len(run.begun) for run in [*runs, last]),
        "most_again": max((len(row["again"]) for row in rows), default=0),
        "most_of_a_layer": max((row["of_a_layer"] for row in rows), default=0.0),
        "threads": len(os.sched_getaffinity(0)),
        "seed": arguments.seed,
        "machine": table.machine(),
    }
    return rows, facts


def prepared(folder: Path, name: str) -> keras.Model:
    """Write a model with random weights, and random images for it."""
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    save_model(model, folder / "model.keras")
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (IMAGES, *model.input_shape[1:])).astype(np.float32)
    labels = np.arange(IMAGES) % CLASSES
    np.savez(
        folder / "data.npz", x_train=images, y_train=labels, x_test=images[:32], y_test=labels[:32]
    )
    return model


def moments(scores: int, kills: int, seed: int) -> list[tuple[int, float]]:
    """After how many scores of all runs together to kill, and how many seconds later."""
    rng = np.random.default_rng(seed)
    after = np.sort(rng.choice(int(LAST_KILL * scores), kills, replace=False))
    waits = rng.uniform(0, LONGEST_WAIT_S, kills)
    return [(int(scores), float(wait)) for scores, wait in zip(after, waits, strict=True)]


@dataclass
class Run:
    """What one process told: scores begun and done, with the time on this machine's clock."""

    begun: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    ended: float = 0.0
    killed: bool = False

    def hear(self, line: str) -> None:
        word, _, score = line.strip().partition(" ")
        if word == "scoring":
            self.begun[score] = time.monotonic()
        elif word == "scored":
            self.done.add(score)


def cut_off(command: list[str], scores: int, wait_s: float) -> Run:
    """Run until so many scores are done, and a moment longer; then kill -9."""
    run, process = Run(), started(command)

    def kill() -> None:
        run.killed = process.poll() is None
        run.ended = time.monotonic()
        process.kill()

    killing = threading.Timer(wait_s, kill)
    for line in lines(process):
        run.hear(line)
        if run.begun and len(run.done) >= scores and killing.ident is None:
            killing.start()
    process.wait()
    killing.join()
    return run


def finished(command: list[str]) -> Run:
    """Run to the end. Raises SystemExit with what it said when it fails."""
    run, said = Run(), []
    process = started(command)
    for line in lines(process):
        run.hear(line)
        said.append(line)
    if process.wait() != 0:
        raise SystemExit("".join(said[-5:]))
    run.ended = time.monotonic()
    return run


def started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lrf_core", *command],
        cwd=ROOT,
        env={**os.environ, "LRF_LOG_LEVEL": "debug"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Of standard error, until it is closed."""
    if process.stderr is not None:
        with process.stderr:
            yield from process.stderr


def count_scored(runs: list[Run]) -> int:
    return len({score for run in runs for score in run.done})


def row_of(
    number: int,
    kill: tuple[int, float],
    runs: list[Run],
    last: Run,
    methods_of: dict[str, int],
) -> table.Row:
    """Args: runs: the killed one and those after it."""
    run, later = runs[0], [*runs[1:], last]
    again = [score for score in run.begun if any(score in each.begun for each in later)]
    after, wait_s = kill
    return {
        "kill": number + 1,
        "after_scores": after,
        "and_s": round(wait_s, 2),
        "begun": len(run.begun),
        "done": len(run.done),
        "again": again,
        "of_a_layer": round(sum(1 / methods_of[layer_of(score)] for score in again), 2),
        "lost_s": round(sum(run.ended - run.begun[score] for score in again), 1),
    }


def layer_of(score: str) -> str:
    """Of what the log calls `'layer' by method`."""
    return score.rpartition(" by ")[0].strip("'")


def without_time(space: DesignSpace) -> dict[str, object]:
    content = space.model_dump()
    del content["lineage"]["created"]
    return content


if __name__ == "__main__":
    main()
