"""Time two models side by side, so that a busy machine slows both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.console.progress import track
from lrf_core.export import LitertModel
from lrf_core.measurement.served import ServedModel
from lrf_core.models.structure import Samples

_WARM_UP_RUNS = 3
# Where time is short, each is still timed this often.
_FEWEST_REPEATS = 5

# Reads a clock, in seconds.
Clock = Callable[[], float]
Run = Callable[[], object]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run: the median and the 95th percentile of `repeats` runs."""

    median_ms: float
    p95_ms: float
    repeats: int


def compare_latency(first: Run, second: Run, repeats: int) -> tuple[Latency, Latency]:
    """Time two runs in turns (first, second, first, second, ...) after a warm-up of both."""
    one, other = latency_in_turns((first, second), repeats)
    return one, other


def latency_in_turns(runs: Sequence[Run], repeats: int) -> list[Latency]:
    """Time any number of runs in turns after a warm-up of all."""
    return [_summary(times) for times in _times_in_turns(runs, track(range(repeats), "Latency"))]


def time_latency(run: Run, repeats: int) -> Latency:
    """Time one run after a warm-up."""
    return latency_in_turns((run,), repeats)[0]


def processor_time_in_turns(runs: Sequence[Run], repeats: int, seconds: float) -> list[Latency]:
    """Time any number of runs in turns after a warm-up of all, without a word of progress.

    What counts is the time of this thread on the processor. For work on one thread that is its
    latency, less the time in which something else had the processor: on a busy machine that takes
    longer than the work itself.

    Args:
        runs: each does all its work on the thread that calls it.
        repeats: of each, at most.
        seconds: no more repeats once this has passed and each was run 5 times.
    """
    rounds = _rounds(repeats, seconds)
    return [_summary(times) for times in _times_in_turns(runs, rounds, time.thread_time)]


def keras_run(model: keras.Model, sample: Samples) -> Run:
    """One compiled forward pass of `sample` `(1, *input_shape)`, input and output copied."""
    return lambda: model.predict_on_batch(sample)


def litert_run(model: LitertModel | ServedModel, sample: Samples) -> Run:
    """One LiteRT pass of `sample` `(1, *input_shape)` on one thread, input and output copied."""
    return lambda: model.predict(sample)


def _rounds(repeats: int, seconds: float) -> Iterator[int]:
    started = time.monotonic()
    for done in range(repeats):
        if done >= _FEWEST_REPEATS and time.monotonic() - started > seconds:
            return
        yield done


def _times_in_turns(
    runs: Sequence[Run], rounds: Iterable[int], clock: Clock = time.perf_counter
) -> tuple[list[float], ...]:
    for run in runs:
        for _ in range(_WARM_UP_RUNS):
            run()
    times_ms: tuple[list[float], ...] = tuple([] for _ in runs)
    for _ in rounds:
        for run, times in zip(runs, times_ms, strict=True):
            started = clock()
            run()
            times.append(1e3 * (clock() - started))
    return times_ms


def _summary(times_ms: list[float]) -> Latency:
    median, p95 = np.percentile(times_ms, (50, 95))
    return Latency(median_ms=float(median), p95_ms=float(p95), repeats=len(times_ms))
