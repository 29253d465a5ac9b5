"""How far a model's confidence is from how often it is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

Array = npt.NDArray[Any]

BINS = 15
# What rounding adds to a probability in half precision.
_ROUNDING = 1e-3


def expected_calibration_error(right: Array, confidence: Array) -> float:
    """Percent by which confidence and accuracy differ, averaged over 15 bins of equal width.

    Args:
        right: `(n,)` bool, whether the class given is the label.
        confidence: `(n,)`, the probability of the class given, 0 to 1.

    References:
        Naeini, Cooper, Hauskrecht, AAAI 2015; Guo, Pleiss, Sun, Weinberger, "On Calibration of
        Modern Neural Networks", ICML 2017, equation 3.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right.astype(float) - confidence, minlength=BINS)
    return 100.0 * float(np.abs(gaps).sum()) / len(right)


def are_probabilities(answers: Array) -> bool:
    """Whether all of `(n, classes)` lie between 0 and 1; logits practically never do."""
    return bool((answers >= -_ROUNDING).all() and (answers <= 1.0 + _ROUNDING).all())


def as_probabilities(answers: Array, are_given: bool) -> Array:
    """Answers `(n, classes)` as they are where they are probabilities, else through a softmax."""
    values = answers.astype(np.float64)
    found: Array = np.clip(values, 0.0, 1.0) if are_given else softmax(values, axis=-1)
    return found
