"""Fine-tune by several workers: on this machine, or as a TrainJob on a cluster."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from lrf_core.artifacts import FinetuneRecord
from lrf_core.data import Data
from lrf_core.data.split import Array
from lrf_core.errors import SpecError, WorkerError
from lrf_core.files.scratch import scratch_folder
from lrf_core.models.compiled import Compiled
from lrf_core.spec import FinetuneSpec
from lrf_core.training.job import Job, read_result
from lrf_core.training.launch import free_address, run_workers

_logger = logging.getLogger("lrf")
_MODULE = "lrf_core.stages.finetune_worker"


def finetune_by_workers(
    model: keras.Model,
    teacher: keras.Model,
    data: Data,
    *,
    settings: FinetuneSpec,
    seed: int,
    compiled: Compiled,
) -> tuple[keras.Model, FinetuneRecord]:
    """`stages.finetune` in `settings.workers` other processes.

    Args:
        data: can be opened again from its source.

    Raises:
        SpecError: jax is not installed.
        WorkerError: a worker failed; with its message and exit code where it gave one.
        LrfError: see `stages.finetune`.
    """
    job = Job.of(model, teacher, data, settings, seed, compiled)
    if settings.trainjob is not None:
        from lrf_core.training.cluster import run_on_cluster

        return run_on_cluster(job, model, teacher, settings.trainjob)
    _check_jax(settings.workers)
    with scratch_folder("workers") as folder:
        job.write(folder, model, teacher)
        try:
            run_workers(local_commands(folder, settings.workers), folder)
        except WorkerError as error:
            raise WorkerError(f"{error}{_advice(error, settings)}", error.exit_code) from None
        return read_result(folder)


def local_commands(folder: Path, count: int) -> list[list[str]]:
    """What each worker of a job in a folder is started by, on this machine."""
    started = [sys.executable, "-m", _MODULE, str(folder), "--coordinator", free_address()]
    return [[*started, "--rank", str(rank), "--count", str(count)] for rank in range(count)]


def _advice(error: WorkerError, settings: FinetuneSpec) -> str:
    if error.exit_code != WorkerError.exit_code:
        return ""  # bad input: once more would end the same
    if settings.checkpoint:
        return "; run it again, and fine-tuning goes on from its last checkpoint"
    return "; run it again, with finetune.checkpoint set to go on from there another time"


def _check_jax(workers: int) -> None:
    if importlib.util.find_spec("jax") is None:
        raise SpecError(f"finetune.workers: {workers} needs jax; pip install 'lrf[jax]'")
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        _logger.info("finetune.trainjob is not set: %d workers are processes of this pod", workers)


@dataclass(frozen=True)
class Workers:
    """Which of how many processes this one is.

    More than one need Keras' JAX backend, and `keras.distribution.initialize` before.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def shard(self, batch: Array) -> Array:
        """This worker's part of the indices of a batch; `count` divides their number."""
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def distributed(self) -> AbstractContextManager[object]:
        """While open, models are made, and trained, over all workers."""
        if self.count == 1:
            return nullcontext()
        scope: AbstractContextManager[object] = keras.distribution.DataParallel(
            auto_shard_dataset=False
        ).scope()
        return scope

    def broadcast(self, values: Array) -> Array:
        """What the worker that leads passes here; all call it, with arrays of one shape and type.

        Machines of several kinds round differently. A worker that decided by its own numbers to
        stop would leave the others waiting for it.
        """
        if self.count == 1:
            return values
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.broadcast_one_to_all(values))
