"""Batches of one epoch: seeded by its number, so that training can go on within it."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from lrf_core.data import Split
from lrf_core.data.split import Array
from lrf_core.models.structure import Samples
from lrf_core.training.augment import Augment
from lrf_core.training.distribute import Workers

# Threads that make batches while the model trains, and how many they are ahead.
_THREADS = 2
_AHEAD = 8


@dataclass(frozen=True)
class Batches:
    """How training samples are shuffled, cut into batches and changed.

    Attributes:
        targets: what the loss compares answers with, `(count, width)`.
        batch_size: of all workers together.
        augment: None to train on the samples as they are.
    """

    samples: Split
    targets: Array
    batch_size: int
    seed: int
    augment: Augment | None
    workers: Workers

    @property
    def per_epoch(self) -> int:
        # A last batch of a few samples would give batch normalization poor statistics; what is
        # left over is another part of the data in each epoch.
        return self.samples.count // self.batch_size

    def epoch(self, number: int, start: int = 0) -> EpochBatches:
        """The batches of an epoch from batch `start` on, each time the same."""
        return EpochBatches(self, number, start)


class EpochBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Samples and targets of the batches that are left of one epoch."""

    def __init__(self, batches: Batches, epoch: int, start: int) -> None:
        super().__init__(workers=_THREADS, max_queue_size=_AHEAD)
        self._batches, self._epoch, self._start = batches, epoch, start
        random = np.random.default_rng([batches.seed, epoch])
        self._order = random.permutation(batches.samples.count)

    def __len__(self) -> int:
        return self._batches.per_epoch - self._start

    def __getitem__(self, index: int) -> tuple[Samples, Array]:
        number, size = self._start + index, self._batches.batch_size
        chosen = self._order[number * size : (number + 1) * size]
        chosen = self._batches.workers.shard(chosen)
        samples = self._batches.samples.read(chosen)
        if self._batches.augment:
            rank = self._batches.workers.rank
            random = np.random.default_rng([self._batches.seed, self._epoch, number, rank])
            samples = self._batches.augment(samples, random)
        return samples, self._batches.targets[chosen]
