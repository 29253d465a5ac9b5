"""Images in class folders, decoded as Keras' own image_dataset_from_directory does."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lrf_core.console.progress import work
from lrf_core.data.check import Expected, check_counts, divided
from lrf_core.data.image import (
    SUFFIXES,
    check_image,
    decoded_image,
    obey_pixel_limit,
    read_image_file,
)
from lrf_core.data.split import Array, Data, Read, Split
from lrf_core.errors import DataError

MEMORY_BYTES = 2 * 2**30  # decoded images up to this size are kept; more are read when needed
_TEST_NAMES = ("test", "val", "validation")
_FILES_AT_ONCE = 64

_logger = logging.getLogger("lrf")


@dataclass(frozen=True)
class _Images:
    """Image files with their class ids `(n,)`; names are paths below the folder opened."""

    root: Path
    names: tuple[str, ...]
    labels: Array


def open_folder(path: Path, expected: Expected, seed: int) -> Data:
    """Read class folders of images, or `train/` and `test/` folders that hold such folders.

    Classes are numbered in alphabetical order. Images are resized (bilinear, not antialiased) and
    given 1 or 3 channels as the model's input is, as uint8.

    Raises:
        DataError: no images, an empty class, classes that do not fit the model or differ between
            train and test, or a file that is no image.
    """
    size = _image_size(path, expected)
    obey_pixel_limit()
    parts = _parts(path)
    classes = {name: _class_names(folder) for name, folder in parts.items()}
    names = classes[next(iter(classes))]
    _check_classes(path, classes, expected)
    images = [_index(path, folder, names) for folder in parts.values()]
    whole = _join(images)
    read, digest = _open_images(whole, size)
    split = Split(count=len(whole.names), labels=whole.labels, read=read)
    if len(images) == 2:
        first = len(images[0].names)
        train, test = split.take(np.arange(first)), split.take(np.arange(first, split.count))
    else:
        train, test = divided(split, seed)
    check_counts(train, test, str(path))
    return Data(train=train, test=test, class_names=names, source=str(path), digest=digest)


def _image_size(path: Path, expected: Expected) -> tuple[int, int, int]:
    if len(expected.inputs) > 1:
        raise DataError(
            f"{path} gives images only, but the model takes {', '.join(expected.names)}; give an "
            ".npz file with an array for each, or module:function"
        )
    shape = expected.inputs[0].shape
    if len(shape) != 3 or None in shape or shape[2] not in (1, 3):
        hint = ""
        if len(shape) == 3 and shape[0] in (1, 3):
            hint = " (it seems to take channels first)"
        raise DataError(
            f"{path} holds images, but the model takes samples of shape {shape}{hint}; a folder "
            "can feed models of a fixed (height, width, 1 or 3). Give an .npz file instead"
        )
    height, width, channels = (int(size) for size in shape if size is not None)
    return height, width, channels


def _parts(path: Path) -> dict[str, Path]:
    """The folders to read: train and test, or the one that was given."""
    train = path / "train"
    if not (train.is_dir() and _folders(train)):  # a class may be called "train", too
        return {"all": path}
    present = [name for name in _TEST_NAMES if (path / name).is_dir()]
    if not present:
        raise DataError(
            f"{path} has train/ but no test/, val/ or validation/ beside it; add one, or give "
            f"{train} to have 20% of it held out for the test"
        )
    if len(present) > 1:
        _logger.info("%s: testing with %s/, leaving %s/ out", path, *present[:2])
    return {"train": train, "test": path / present[0]}


def _folders(path: Path) -> list[Path]:
    return sorted(
        (below for below in path.iterdir() if below.is_dir() and not below.name.startswith(".")),
        key=lambda folder: folder.name,
    )


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _folders(path))
    if not names:
        raise DataError(f"{path} has no class folders; put the images of each class in a folder")
    return names


def _check_classes(path: Path, classes: dict[str, tuple[str, ...]], expected: Expected) -> None:
    names = classes.get("train", classes.get("all", ()))
    if len(names) != expected.classes:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise DataError(
            f"{path} has {len(names)} class folders ({shown}), but the model has "
            f"{expected.classes} outputs; there must be one folder for each"
        )
    differing = sorted(set(names) ^ set(classes.get("test", names)))
    if differing:
        raise DataError(
            f"{path}: the class folders of train and test differ in {', '.join(differing[:5])}; "
            "both must have the same"
        )


def _index(root: Path, folder: Path, classes: Sequence[str]) -> _Images:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            (Path(parent) / file).relative_to(root).as_posix()
            for parent, _, files in os.walk(folder / name)
            for file in files
            if file.lower().endswith(SUFFIXES) and not file.startswith(".")
        )
        if not found:
            raise DataError(
                f"class folder {folder / name} holds no images ({', '.join(SUFFIXES)}); add some "
                "or remove the folder"
            )
        names += found
        labels += [label] * len(found)
    return _Images(root, tuple(names), np.array(labels, dtype=np.int64))


def _join(parts: Sequence[_Images]) -> _Images:
    names = tuple(name for part in parts for name in part.names)
    return _Images(parts[0].root, names, np.concatenate([part.labels for part in parts]))


def _open_images(images: _Images, size: tuple[int, int, int]) -> tuple[Read, str]:
    """How to read images `(n, height, width, channels)` uint8, and the digest of all files."""
    count = len(images.names)
    fits = count * math.prod(size) <= MEMORY_BYTES
    decoded = np.empty((count, *size), dtype=np.uint8) if fits else None
    digest = hashlib.sha256()
    blocks = [range(i, min(i + _FILES_AT_ONCE, count)) for i in range(0, count, _FILES_AT_ONCE)]

    def block(indices: range) -> list[bytes]:
        digests = []
        for index in indices:
            content = read_image_file(images.root / images.names[index])
            digests.append(hashlib.sha256(content).digest())
            if decoded is None:
                check_image(content, images.root / images.names[index])
            else:
                decoded[index] = decoded_image(content, images.root / images.names[index], size)
        return digests

    with work("Reading images", count) as advance, ThreadPoolExecutor() as pool:
        # Raises what a block raised, when its turn comes; the rest is then not started.
        running = [pool.submit(block, indices) for indices in blocks]
        try:
            for indices, future in zip(blocks, running, strict=True):
                for index, content_digest in zip(indices, future.result(), strict=True):
                    name = images.names[index]
                    digest.update(f"{len(name)} {name} ".encode() + content_digest)
                advance(len(indices))
        finally:
            pool.shutdown(cancel_futures=True)
    if decoded is not None:
        return (lambda indices: decoded[indices]), digest.hexdigest()
    return _Reader(images, size), digest.hexdigest()


@dataclass(frozen=True)
class _Reader:
    """Reads and decodes the images asked for, each time again."""

    images: _Images
    size: tuple[int, int, int]

    def __call__(self, indices: Array) -> Array:
        def one(index: int) -> Array:
            path = self.images.root / self.images.names[index]
            return decoded_image(read_image_file(path), path, self.size)

        with ThreadPoolExecutor() as pool:
            decoded = list(pool.map(one, np.asarray(indices).tolist()))
        return np.stack(decoded) if decoded else np.empty((0, *self.size), dtype=np.uint8)
