"""What is not set follows from the data: batch size, learning rate, patience."""

from __future__ import annotations

import math

import keras

from lrf_core.errors import SpecError
from lrf_core.spec import FinetuneSpec

_WARM_UP_SHARE = 0.05  # of all steps
# Fewer steps an epoch than this leave the schedule too coarse, larger batches than that slow down
# what is learnt from a sample.
_STEPS_PER_EPOCH = 100
_BATCHES = (16, 128)
# Numbers in the samples of one batch, at most: their feature maps are kept for the backward pass.
_VALUES_PER_BATCH = 2**23
_LEARNING_RATE = 5e-4  # of batches of 128; of factors that are a good start already
_LEAST_PATIENCE = 3


def resolved(settings: FinetuneSpec, count: int, values: int, workers: int) -> FinetuneSpec:
    """The settings with everything set.

    Args:
        count: training samples.
        values: numbers in one sample.
        workers: that share each batch.

    Raises:
        SpecError: a batch of that size has no sample for each worker.

    References:
        Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms" (2022):
        the learning rate of Adam grows with the square root of the batch size.
    """
    batch_size = min(settings.batch_size or _batch_size(count, values), count)
    if batch_size < workers:
        raise SpecError(f"batches of {batch_size} are too small for {workers} workers")
    batch_size -= batch_size % workers
    learning_rate = settings.learning_rate or _LEARNING_RATE * math.sqrt(batch_size / _BATCHES[1])
    patience = settings.patience or max(_LEAST_PATIENCE, settings.epochs // 2)
    return settings.model_copy(
        update={"batch_size": batch_size, "learning_rate": learning_rate, "patience": patience}
    )


def cosine(peak: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """A short warm-up to `peak`, then a cosine down to 0 after `steps` in all."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / warm_up,
        decay_steps=max(1, steps - warm_up),
        warmup_target=peak,
        warmup_steps=warm_up,
    )


def _batch_size(count: int, values: int) -> int:
    fitting = max(1, _VALUES_PER_BATCH // max(values, 1))
    wanted = min(max(count // _STEPS_PER_EPOCH, _BATCHES[0]), _BATCHES[1], fitting)
    return 1 << int(math.log2(wanted))
