"""Samples with their labels, in memory or read on demand, behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lrf_core.models.structure import Samples, chosen, sample_count

Array = npt.NDArray[Any]
Read = Callable[[Array], Samples]


@dataclass(frozen=True)
class Split:
    """Samples that are addressed by index.

    Attributes:
        count: number of samples.
        labels: class ids, `(count,)` int64; None when unlabelled.
        read: indices `(n,)` to samples `(n, *input_shape)`, in the type they are stored in; for
            a model with several inputs a list or dict of such arrays.
        origin: for a part of another split: which of that split's samples these are, `(count,)`;
            of the largest, where parts were taken of parts.
    """

    count: int
    labels: Array | None
    read: Read
    origin: Array | None = None

    @classmethod
    def of(cls, samples: Samples, labels: Array | None = None) -> Split:
        """A split over samples in memory, `(count, *input_shape)`, and their class ids.

        Samples of a model with several inputs are a list or dict of arrays, as the model takes it.
        """
        ids = None if labels is None else np.asarray(labels, dtype=np.int64)
        count = sample_count(samples)
        return cls(count=count, labels=ids, read=lambda indices: chosen(samples, indices))

    def take(self, indices: npt.ArrayLike) -> Split:
        """A view of the samples at `indices` `(n,)`, in that order.

        Raises:
            IndexError: an index is not in `[0, count)`.
        """
        taken = np.asarray(indices, dtype=np.int64).reshape(-1)
        if taken.size and not (taken.min() >= 0 and taken.max() < self.count):
            found = f"{taken.min()} to {taken.max()}"
            raise IndexError(f"indices must lie in [0, {self.count}), got {found}")
        return Split(
            count=len(taken),
            labels=None if self.labels is None else self.labels[taken],
            read=lambda within: self.read(taken[within]),
            origin=taken if self.origin is None else self.origin[taken],
        )

    def sample(self, count: int, seed: int) -> Split:
        """At most `count` samples, drawn without replacement and kept in their order."""
        if count >= self.count:
            return self
        drawn = np.random.default_rng(seed).choice(self.count, count, replace=False)
        return self.take(np.sort(drawn))

    def arrays(self) -> tuple[Samples, Array | None]:
        """All samples `(count, *input_shape)` and their labels, read into memory."""
        return self.read(np.arange(self.count)), self.labels

    def batches(self, batch_size: int) -> Iterator[tuple[Samples, Array | None]]:
        """Samples and labels in order, `batch_size` at a time; the last batch may be smaller."""
        for start in range(0, self.count, batch_size):
            indices = np.arange(start, min(start + batch_size, self.count))
            yield self.read(indices), None if self.labels is None else self.labels[indices]


@dataclass(frozen=True)
class Data:
    """Labelled samples for calibration, fine-tuning and judging.

    Attributes:
        train, test: the two disjoint parts; both carry labels.
        class_names: name of each class id.
        source: what the user gave.
        digest: sha256 (hex) of the content.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    source: str
    digest: str

    @classmethod
    def from_arrays(
        cls,
        x_train: Samples,
        y_train: npt.ArrayLike,
        x_test: Samples | None = None,
        y_test: npt.ArrayLike | None = None,
        *,
        class_names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Data:
        """Data of a classifier from arrays in memory.

        Args:
            x_train: samples `(n, *input_shape)`; for a model with several inputs a list or dict of
                such arrays.
            y_train: class ids `(n,)` or `(n, 1)`, or one-hot `(n, classes)`.
            x_test: test samples, in the form of `x_train`. Without them a fifth of the samples of
                each class becomes the test part.
            y_test: labels of the test samples.
            class_names: name of each class; by default its number.
            seed: of the division, if there is no test part.

        Raises:
            DataError: the arrays do not fit each other, are not labels, or are too few.

        Example:
            >>> import numpy as np
            >>> import lrf_core as lrf
            >>> x, y = np.zeros((100, 8, 8, 1), "uint8"), np.arange(100) % 2
            >>> data = lrf.Data.from_arrays(x, y)
            >>> data.train.count, data.test.count, data.class_names
            (80, 20, ('0', '1'))
        """
        from lrf_core.data.check import data_of_arrays

        return data_of_arrays(x_train, y_train, x_test, y_test, class_names, seed)
