"""Whether samples, labels and baseline are sound enough to judge anything by."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lrf_core.data import Split
from lrf_core.data.check import class_ids, expected_by
from lrf_core.errors import DataError
from lrf_core.measurement.measure import is_right, share_right

Array = npt.NDArray[Any]

# Standard errors by which a baseline must beat guessing to be worth comparing with.
_ABOVE_CHANCE = 2.0


def with_checked_labels(split: Split, model: keras.Model) -> Split:
    """The samples with class ids `(count,)`, of labels `(count,)`, `(count, 1)` or one-hot.

    Raises:
        DataError: no samples or no labels, labels of another form, number or range than the
            model's answers, or of one class only.
        ModelError: the model is no classifier.
    """
    if not split.count:
        raise DataError("there are no test samples to judge on; give at least two classes of them")
    if split.labels is None:
        raise DataError("the test samples have no labels, so that accuracy cannot be measured")
    if len(split.labels) != split.count:
        raise DataError(
            f"there are {split.count:,} test samples but {len(split.labels):,} labels; give one "
            "for each"
        )
    labels = class_ids(split.labels, "the test data", expected_by(model))
    if len(np.unique(labels)) == 1:
        raise DataError(
            f"all {split.count:,} test samples are of class {labels[0]}: a model that always "
            "answers this class would be perfect; give samples of at least two classes"
        )
    return dataclasses.replace(split, labels=labels)


def check_baseline(answers: Array, split: Split) -> None:
    """Raise DataError when a drop from this baseline would mean nothing.

    Args:
        answers: `(count, classes)`.
    """
    if not np.isfinite(answers).all():
        raise DataError(
            "the baseline answers NaN or infinite values on the test data; check how the samples "
            "are scaled, or give a sound baseline"
        )
    accuracy, classes = share_right(is_right(answers, split)), answers.shape[-1]
    chance = 1.0 / classes
    error = math.sqrt(chance * (1.0 - chance) / split.count)
    if accuracy <= 100.0 * (chance + _ABOVE_CHANCE * error):
        raise DataError(
            f"the baseline gets {accuracy:.1f}% of {split.count:,} test samples right, no better "
            f"than guessing among {classes} classes ({100.0 * chance:.1f}%): the baseline is "
            "broken, its samples were scaled otherwise in training, or the labels are in another "
            "order"
        )
