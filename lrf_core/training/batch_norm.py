"""Estimate statistics of batch normalization again, over many batches of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from lrf_core.console.progress import work
from lrf_core.data import Split

# Samples that statistics are taken over; more change little.
_SAMPLES = 4096


def normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The layers whose statistics training changes."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def recalibrate(model: keras.Model, samples: Split, batch_size: int, seed: int) -> None:
    """Set moving means and variances to their averages over batches of training samples.

    The averages that training leaves are over the last few dozen batches, of weights that have
    changed meanwhile.

    References:
        Wu, Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3 (PreciseBN).
    """
    layers = normalizations(model)
    order = np.random.default_rng(seed).permutation(samples.count)[:_SAMPLES]
    batches = max(1, len(order) // batch_size)
    with (
        _settings_kept(layers, "momentum"),
        _without_dropout(model),
        work("Batch normalization", batches) as advance,
    ):
        for number in range(batches):
            chosen = order[number * batch_size : (number + 1) * batch_size]
            for layer in layers:
                layer.momentum = number / (number + 1)  # the average so far, exactly
            inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, samples.read(chosen))
            model(inputs, training=True)
            advance(1)


@contextmanager
def _without_dropout(model: keras.Model) -> Iterator[None]:
    """What is served drops nothing, and has other statistics than what does."""
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "rate")]
    with _settings_kept(layers, "rate"):
        for layer in layers:
            layer.rate = 0.0
        yield


@contextmanager
def _settings_kept(layers: list[Any], name: str) -> Iterator[None]:
    before = [getattr(layer, name) for layer in layers]
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            setattr(layer, name, value)
