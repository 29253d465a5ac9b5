"""Evaluation samples that are training samples too: what a model does on them proves little."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lrf_core.console.progress import work
from lrf_core.data import Split

# Training samples that are looked at: all of most data sets, minutes of decoding of the largest.
MOST_TRAINING_SAMPLES = 50_000
_BATCH = 256


@dataclass(frozen=True)
class Overlap:
    """How many evaluation samples are among the training samples that were looked at."""

    shared: int
    evaluated: int
    looked_at: int
    training: int

    def warning(self) -> str:
        """In one line for a user; "" where nothing is shared."""
        if not self.shared:
            return ""
        searched = "the training samples"
        if self.looked_at < self.training:
            searched = f"the {self.looked_at:,} of {self.training:,} training samples looked at"
        return (
            f"{self.shared:,} of {self.evaluated:,} test samples "
            f"({self.shared / self.evaluated:.1%}) are among {searched}: what both models reach on "
            "them says little about new samples"
        )


def overlap(evaluation: Split, training: Split, seed: int) -> Overlap:
    """Find evaluation samples whose content equals that of a training sample.

    Compared by digest, bit by bit: another encoding of the same image is another sample.

    Args:
        seed: of the training samples looked at, if there are more than 50,000.
    """
    searched = training.sample(MOST_TRAINING_SAMPLES, seed)
    with work("Comparing test with training data", evaluation.count + searched.count) as advance:
        known = set()
        for digests in _digests(searched):
            known.update(digests)
            advance(len(digests))
        shared = 0
        for digests in _digests(evaluation):
            shared += sum(digest in known for digest in digests)
            advance(len(digests))
    return Overlap(shared, evaluation.count, searched.count, training.count)


def _digests(split: Split) -> Iterator[list[bytes]]:
    for samples, _ in split.batches(_BATCH):
        arrays = keras.tree.flatten(samples)
        yield [_digest([values[i] for values in arrays]) for i in range(len(arrays[0]))]


def _digest(parts: list[Any]) -> bytes:
    """Digest of one sample, of one or several arrays; numbers by value type, texts by content."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        values = np.asarray(part)
        if values.dtype.kind in "SUO":  # their width in memory is that of the longest in the array
            for text in values.reshape(-1):
                digest.update(repr(text).encode())
        else:
            digest.update(values.dtype.str.encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
