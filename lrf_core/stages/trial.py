"""What plans lose before fine-tuning, measured on training samples; never on test samples."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.data import Split
from lrf_core.errors import GoalError
from lrf_core.exploration.predict import MeasuredDrop, paired_drop
from lrf_core.measurement.measure import is_right, predict
from lrf_core.models.structure import judged_output

Array = npt.NDArray[Any]

# Samples that plans are tried on, at most.
TRIAL_SAMPLES = 2048
# Training samples beside the calibration samples that are enough to be tried on.
_ENOUGH_SAMPLES = 256


def trial_samples(train: Split, calibration: Split, seed: int) -> Split:
    """Seeded training samples that factors were not fitted to.

    Where fewer of them than `_ENOUGH_SAMPLES`, and than calibration samples, are left, the
    calibration samples themselves.

    Args:
        calibration: a part of `train`.
    """
    own = np.arange(train.count) if train.origin is None else train.origin
    used = own if calibration.origin is None else calibration.origin
    left = np.flatnonzero(~np.isin(own, used))
    if len(left) < min(_ENOUGH_SAMPLES, calibration.count):
        return calibration.sample(TRIAL_SAMPLES, seed)
    return train.take(left).sample(TRIAL_SAMPLES, seed)


class AccuracyProbe:
    """How much accuracy other models lose against one, on the same samples.

    Where the samples have no labels, the original's own classes stand for them.

    Args:
        model: the original.
    """

    def __init__(self, model: keras.Model, samples: Split) -> None:
        self.samples = samples
        self._model = model

    @property
    def labelled(self) -> bool:
        return self.samples.labels is not None

    def drop(self, other: keras.Model) -> MeasuredDrop:
        """Points that a model with the same answers loses. Raises GoalError: no classes."""
        judged_samples, before = self._original
        after = is_right(predict(other, self.samples), judged_samples)
        lost, won = int(np.sum(before & ~after)), int(np.sum(~before & after))
        return paired_drop(lost, won, self.samples.count)

    @cached_property
    def _original(self) -> tuple[Split, Array]:
        """The samples with labels, and where the original is right."""
        if judged_output(self._model) is None:
            raise GoalError(
                f"max_accuracy_drop needs a model that answers with two classes or more; model "
                f"'{self._model.name}' answers {self._model.output_shape}. Limit the size or "
                "max_predicted_loss instead"
            )
        answers = predict(self._model, self.samples)
        samples = self.samples
        if samples.labels is None:
            own = answers.argmax(axis=-1).astype(np.int64)
            samples = Split(samples.count, own, samples.read, samples.origin)
        return samples, is_right(answers, samples)
