"""The calibration samples: drawn, checked and identified, a few at a time."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import keras
import numpy as np

from lrf_core.data import Data, Split
from lrf_core.data.split import Array
from lrf_core.errors import DataError
from lrf_core.models.structure import sample_count

_READ_AT_ONCE = 32

_logger = logging.getLogger("lrf")


def calibration_samples(data: Data, count: int, seed: int) -> Split:
    """Seeded training samples. Raises DataError when there are too few."""
    if data.train.count < count:
        raise DataError(
            f"{data.source} has {data.train.count} training samples, explore.samples asks for "
            f"{count}; lower it or give more data"
        )
    return data.train.sample(count, seed)


def samples_digest(samples: Split) -> str:
    """sha256 (hex) of samples, with their shapes and dtypes."""
    digests: list[Any] = []
    for batch, _ in samples.batches(_READ_AT_ONCE):
        arrays = keras.tree.flatten(batch)
        if not digests:
            digests = [
                hashlib.sha256(f"{values.dtype}{(samples.count, *values.shape[1:])}".encode())
                for values in arrays
            ]
        for digest, values in zip(digests, arrays, strict=True):
            digest.update(np.ascontiguousarray(values))
    if len(digests) == 1:
        return str(digests[0].hexdigest())
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def check_calibration_samples(samples: Split, source: str) -> None:
    """Refuse samples that tell nothing about a model, and warn about those that tell little.

    Args:
        source: what the user gave as data.

    Raises:
        DataError: a sample holds NaN or infinite values, or all samples are the same.
    """
    first: list[Array] = []
    same = flat = True
    for start, batch in _starts_and_batches(samples):
        arrays = keras.tree.flatten(batch)
        first = first or [values[:1] for values in arrays]
        for values in arrays:
            _check_finite(values, start, samples, source)
        same = same and all(
            np.array_equal(values, np.broadcast_to(one, values.shape))
            for values, one in zip(arrays, first, strict=True)
        )
        flat = flat and all(map(_is_constant, arrays))
    if same and samples.count > 1:
        raise DataError(
            f"{source}: all {samples.count} calibration samples are the same; feature maps that "
            "never change say nothing about a layer. Give real samples"
        )
    if flat:
        _logger.warning(
            "%s: every calibration sample is one value throughout; factors are fitted to maps "
            "without structure. Check the images",
            source,
        )
    _warn_of_one_class(samples, source)


def _starts_and_batches(samples: Split) -> Any:
    start = 0
    for batch, _ in samples.batches(_READ_AT_ONCE):
        yield start, batch
        start += sample_count(batch)


def _check_finite(values: Array, start: int, samples: Split, source: str) -> None:
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        which = start + int(np.argmin(finite))
        if samples.origin is not None:
            which = int(samples.origin[which])
        raise DataError(
            f"{source}: training sample {which} holds NaN or infinite values; remove or repair it"
        )


def _is_constant(values: Array) -> bool:
    """Whether each sample is the same number at every position, of two or more."""
    if values.ndim < 3 or values.dtype.kind in "SU":
        return False
    each = values.reshape(len(values), -1, values.shape[-1])
    return bool((each == each[:, :1]).all())


def _warn_of_one_class(samples: Split, source: str) -> None:
    labels = samples.labels
    if labels is not None and samples.count > 1 and (labels == labels[0]).all():
        _logger.warning(
            "%s: all %d calibration samples are of class %d; factors are fitted to that class "
            "alone. Shuffle the data, or raise explore.samples",
            source,
            samples.count,
            int(labels[0]),
        )
