"""What happens to single classes: recall before and after, and which are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from lrf_core.artifacts import ClassChange, Confusion
from lrf_core.gate.interval import score_interval

Array = npt.NDArray[Any]

# Classes that a confusion matrix shows; a larger one nobody can read.
MOST_CLASSES = 50
OTHERS = "(others)"
_LEVEL = 0.95
# Of what a class with few samples does not rule out.
_ONE_SIDED = 0.95
# Samples of a class below which a warning says how little they show.
FEW_SAMPLES = 20
_SHOWN = 5


def class_titles(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """A name for each class: as given, or the ids if there are fewer or more names."""
    return tuple(names) if len(names) == classes else tuple(map(str, range(classes)))


def class_changes(
    labels: Array, before: Array, after: Array, names: Sequence[str]
) -> tuple[ClassChange, ...]:
    """Recall of every class that has samples, the largest drop first.

    Args:
        labels, before, after: class ids `(n,)`: true, and as either model gives them.
        names: of all classes.
    """
    right_before, right_after = before == labels, after == labels
    kinds = (np.ones_like(right_before), right_before, right_after, right_before & ~right_after)
    counts = np.stack([np.bincount(labels[kind], minlength=len(names)) for kind in kinds])
    answered = np.stack([np.bincount(given, minlength=len(names)) for given in (before, after)])
    changes = [
        _change(names[i], *(int(n) for n in counts[:, i])).model_copy(
            update={"answered_before": int(answered[0, i]), "answered_after": int(answered[1, i])}
        )
        for i in np.flatnonzero(counts[0]).tolist()
    ]
    return tuple(sorted(changes, key=lambda change: -change.drop))


def class_warnings(labels: Array, names: Sequence[str]) -> tuple[str, ...]:
    """What cannot be known of classes with too few samples, in words.

    Args:
        labels: class ids `(n,)`.
        names: of all classes.
    """
    found = np.bincount(labels, minlength=len(names)).tolist()
    counts = dict(zip(range(len(names)), found, strict=True))
    absent = [names[i] for i, count in counts.items() if not count]
    few = {i: count for i, count in counts.items() if 0 < count < FEW_SAMPLES}
    warnings = []
    if absent:
        warnings.append(
            f"{len(absent):,} of {len(names):,} classes have no test samples "
            f"({_first(absent)}): nothing is known of them"
        )
    if few:
        shown = [f"{names[i]}: {few[i]}" for i in sorted(few, key=lambda i: few[i])]
        least = min(few.values())
        unseen = 100.0 * score_interval(0, 0, least, 2.0 * _ONE_SIDED - 1.0)[1]
        warnings.append(
            f"{len(few):,} of {len(names):,} classes have fewer than {FEW_SAMPLES} test samples "
            f"({_first(shown)}): {least} that are answered as before do not rule out that recall "
            f"of a class fell by {unseen:.0f} points"
        )
    return tuple(warnings)


def confusion(
    labels: Array, given: Array, names: Sequence[str], most: int = MOST_CLASSES
) -> Confusion:
    """The confusion matrix; of more than `most` classes those with most samples wrong.

    Args:
        labels, given: class ids `(n,)`.
        names: of all classes.
    """
    shown, place = np.arange(len(names)), np.arange(len(names))
    titles = list(names)
    if len(names) > most:
        wrong = np.bincount(labels[labels != given], minlength=len(names))
        shown = np.sort(np.argsort(-wrong, kind="stable")[: most - 1])
        place = np.full(len(names), len(shown))
        place[shown] = np.arange(len(shown))
        titles = [*(names[i] for i in shown.tolist()), OTHERS]
    size = len(titles)
    cells = np.bincount(place[labels] * size + place[given], minlength=size * size)
    rows = cells.reshape(size, size).tolist()
    return Confusion(labels=tuple(titles), counts=tuple(tuple(row) for row in rows))


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _change(label: str, samples: int, before: int, after: int, lost: int) -> ClassChange:
    won = after - before + lost
    low, high = score_interval(lost, won, samples, _LEVEL)
    return ClassChange(
        label=label,
        samples=samples,
        before=100.0 * before / samples,
        after=100.0 * after / samples,
        drop=100.0 * (before - after) / samples,
        interval=(100.0 * low, 100.0 * high),
    )


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
