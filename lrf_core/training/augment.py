"""Random changes of training samples that leave their classes as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lrf_core.data.split import Array
from lrf_core.errors import DataError
from lrf_core.models.structure import Samples
from lrf_core.named_function import function_named, summarize_error, working_directory_importable

# (samples (n, ...), random) to samples of the same shapes and types; draws from `random` alone, so
# that training that is resumed sees the same samples.
Augment = Callable[[Samples, np.random.Generator], Samples]

# Shifts are up to this share of a side.
_LARGEST_SHIFT = 1 / 8


def augmentation(name: str) -> Augment:
    """The augmentation of this name: `flip`, `flip_shift`, or `module:function`.

    Raises:
        DataError: there is no such function, or (when it is called) it fails or returns samples of
            other shapes.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    with working_directory_importable():
        function = function_named(name, DataError)
    return _checked(name, function)


def flip(images: Array, random: np.random.Generator) -> Array:
    """Every other image `(n, height, width, channels)` mirrored left to right, at random.

    Raises:
        DataError: the samples are no images.
    """
    _check_images(images)
    mirrored = random.random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def flip_shift(images: Array, random: np.random.Generator) -> Array:
    """Mirrored at random, and shifted by up to an eighth of each side; zeros move in.

    References:
        He et al., "Deep Residual Learning" (2016), section 4.2: 4 of 32 pixels.
    """
    images = flip(images, random)
    count, height, width, _ = images.shape
    most = [max(1, round(_LARGEST_SHIFT * side)) for side in (height, width)]
    padded = np.pad(images, [(0, 0), *((pad, pad) for pad in most), (0, 0)])
    down, right = (random.integers(0, 2 * pad + 1, count) for pad in most)
    rows = down[:, None] + np.arange(height)
    columns = right[:, None] + np.arange(width)
    shifted: Array = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    return shifted


_KNOWN: dict[str, Augment] = {"flip": flip, "flip_shift": flip_shift}


def _check_images(images: Any) -> None:
    if keras.tree.is_nested(images) or np.ndim(images) != 4:
        raise DataError(
            "only images (height, width, channels) of a model with one input can be flipped and "
            "shifted; name a module:function in finetune.augmentation, or none"
        )


def _checked(name: str, function: Callable[..., Any]) -> Augment:
    def augment(samples: Samples, random: np.random.Generator) -> Samples:
        try:
            changed = function(samples, random)
        except Exception as error:
            raise DataError(f"{name} failed: {summarize_error(error)}") from error
        before, after = (
            [np.shape(part) for part in keras.tree.flatten(given)] for given in (samples, changed)
        )
        if before != after:
            raise DataError(
                f"{name} returned samples of shapes {after}, given {before}; it must return as "
                "many, of the same shape"
            )
        return changed

    return augment
