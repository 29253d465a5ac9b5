"""How fast factorized models train: fine-tuning's own steps, timed in turns with the original's.

Images are random; time does not depend on what they show. The teacher's answers are cached, as they
are in fine-tuning without feature distillation.

Run: python -m benchmarks.training_steps --model resnet20-cifar10.keras --plan WORK/60 WORK/72
     [--batch 128 1024] [--turns 5] [--precision float32] [--out FILE.json]
`--plan` takes models that `benchmarks.finetuning` keeps. Any backend of Keras does (KERAS_BACKEND).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import lrf_core as lrf
from benchmarks.table import machine, show, write
from lrf_core.models.cost import model_cost
from lrf_core.training.learner import TrainerBundle, make_learner
from lrf_core.training.objective import Objective, Targets
from lrf_core.training.schedule import resolved

# Steps of one model before it is the next one's turn.
STEPS = 10


def main() -> None:
    arguments = parse()
    models = {"original": lrf.load_model(arguments.model)}
    models |= {Path(plan).name: lrf.load_model(plan) for plan in arguments.plan}
    settings = lrf.FinetuneSpec(precision=arguments.precision)
    rows = [
        row
        for batch in arguments.batch
        for row in rows_of(models, timed(models, settings, batch, arguments.turns), batch)
    ]
    facts = {
        "backend": keras.config.backend(),
        "gpus": gpus(),
        "precision": arguments.precision,
        "machine": machine(),
    }
    show("Training steps, in turns with the original's", rows, facts)
    write(arguments.out, rows, facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--plan", nargs="+", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training_steps.json"))
    return parser.parse_args()


def gpus() -> list[str]:
    """What each is called, as far as the backend says."""
    if keras.config.backend() == "jax":
        import jax

        return [device.device_kind for device in jax.devices() if device.platform == "gpu"]
    return list(keras.distribution.list_devices("gpu"))


def rows_of(
    models: dict[str, keras.Model], seconds: dict[str, float], batch: int
) -> list[dict[str, Any]]:
    """`asked_times`: faster in proportion to half of the multiply-adds removed."""
    whole = model_cost(models["original"]).macs
    rows = []
    for name, model in models.items():
        removed = 1 - model_cost(model).macs / whole
        rows.append(
            {
                "model": name,
                "batch": batch,
                "macs_removed": f"{removed:.1%}",
                "ms_per_step": round(1000 * seconds[name], 2),
                "images_per_second": round(batch / seconds[name]),
                "times_the_original": round(seconds["original"] / seconds[name], 2),
                "asked_times": round(1 / (1 - removed / 2), 2),
            }
        )
    return rows


def timed(
    models: dict[str, keras.Model], settings: lrf.FinetuneSpec, batch: int, turns: int
) -> dict[str, float]:
    """Median seconds of a training step of each model."""
    images, packed, targets = batch_of(models["original"], batch)
    settings = resolved(settings.model_copy(update={"batch_size": batch}), 100 * batch, 1, 1)
    learners = {
        name: make_learner(model, model, targets, settings, 1000) for name, model in models.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(-1, turns):  # the first is a warm-up
        for name, learner in learners.items():
            taken = steps_of(learner, images, packed)
            if turn >= 0:
                seconds[name] += taken
    return {name: float(np.median(times)) for name, times in seconds.items()}


def batch_of(model: keras.Model, size: int) -> tuple[np.ndarray, np.ndarray, Targets]:
    """Random images, what they are compared with, and how."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, *model.inputs[0].shape[1:])).astype(np.float32)
    classes = int(model.outputs[0].shape[-1])
    spec = lrf.FinetuneSpec()
    objective = Objective(spec.distillation, spec.temperature, 0.0, probabilities=False)
    targets = Targets(objective, classes, cached=True, teacher_probabilities=False)
    labels, answers = rng.integers(0, classes, size), rng.normal(size=(size, classes))
    return images, targets.packed(labels, answers.astype(np.float32)), targets


def steps_of(learner: TrainerBundle, images: np.ndarray, packed: np.ndarray) -> Sequence[float]:
    """Seconds of each of a few steps; the loss is waited for."""
    taken = []
    for _ in range(STEPS):
        started = time.perf_counter()
        float(learner.trainer.train_on_batch(images, packed))
        taken.append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main()
