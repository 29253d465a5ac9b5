"""Metrics that tests name as `named_metrics:function`."""

from __future__ import annotations

import numpy as np


def share_right(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    return answers.argmax(axis=-1) == labels


def mean_margin(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The label's answer less the mean answer, of each sample."""
    return answers[np.arange(len(labels)), labels] - answers.mean(axis=-1)


def macro_recall(labels: np.ndarray, answers: np.ndarray) -> float:
    """No mean over samples: every class that is there counts alike."""
    right = answers.argmax(axis=-1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def three_numbers(labels: np.ndarray, answers: np.ndarray) -> list[float]:
    return [1.0, 2.0, 3.0]


def fails(labels: np.ndarray, answers: np.ndarray) -> float:
    raise KeyError("no such\ncolumn")


def not_finite(labels: np.ndarray, answers: np.ndarray) -> float:
    return float("nan")
