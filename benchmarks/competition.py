"""What the accuracy benchmarks share: their images, and methods alone and in competition."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from typing import Literal

import keras

import lrf_core as lrf


def unpacked(data: Path, scratch: Path) -> Path:
    """The folder of images, taken out of its archive if it is in one."""
    if data.is_dir():
        return data
    with tarfile.open(data) as archive:
        archive.extractall(scratch, filter="data")
    return scratch


def only(space: lrf.DesignSpace, names: tuple[str, ...]) -> lrf.DesignSpace:
    """The design space as if only these methods had been explored."""
    kept = tuple(c for c in space.candidates if c.method in names)
    return space.model_copy(update={"candidates": kept})


def decompose(
    model: keras.Model,
    data: lrf.Data,
    space: lrf.DesignSpace,
    removed: float,
    minimize: Literal["error", "sensitivity"],
    seed: int,
) -> tuple[lrf.Plan, keras.Model]:
    """Remove this many parameters, at least."""
    goal = lrf.Goal(params_reduction=removed / model.count_params())
    settings = lrf.DecomposeSpec(minimize=minimize)
    return lrf.decompose(model, data, [space], goal, settings=settings, seed=seed)


def winners(plan: lrf.Plan) -> str:
    """How many layers each method won."""
    won = Counter(candidate.technique for candidate in plan.replaced())
    return ", ".join(f"{count} {name}" for name, count in won.most_common())
