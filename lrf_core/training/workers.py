"""Several processes that train one model together, each on its part of every batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import keras
import numpy as np

from lrf_core.data.split import Array


@dataclass(frozen=True)
class Workers:
    """Which of how many processes this one is.

    More than one need Keras' JAX backend, and `keras.distribution.initialize` before.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def part(self, batch: Array) -> Array:
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

    def agreed(self, values: Array) -> Array:
        """What the worker that leads passes here; all call it, with arrays of one shape and type.

        Machines of several kinds round differently. A worker that decided by its own numbers to
        stop would leave the others waiting for it.
        """
        if self.count == 1:
            return values
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.broadcast_one_to_all(values))
