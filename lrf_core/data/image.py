"""One image from anybody: its size is known before its pixels are made."""

from __future__ import annotations

import io
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from lrf_core.data.split import Array
from lrf_core.errors import DataError
from lrf_core.files.limits import PIXELS, check_limit, limit

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Whatever the file is called, Pillow tries no other decoder: that of EPS runs Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# Of one pixel, in a file that is not compressed: four channels of 16 bits.
_BYTES_PER_PIXEL = 8
# Larger images are decoded one at a time.
_LARGE_PIXELS = 16_000_000
_one_at_a_time = threading.Lock()


def obey_pixel_limit() -> None:
    """Have Pillow, which looks at sizes before this module can, use `LRF_MAX_PIXELS` as well."""
    Image.MAX_IMAGE_PIXELS = limit(PIXELS)


def read_image_file(path: Path) -> bytes:
    """The content of an image file. Raises DataError."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"cannot read the image {path}: it is no plain file; remove it")
        most = _BYTES_PER_PIXEL * limit(PIXELS)
        if found.st_size > most:
            raise DataError(
                f"the image {path} has {found.st_size:,} bytes, the limit is {most:,}; if it is "
                f"sound, set {PIXELS} to more than {limit(PIXELS):,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror or error}") from None


def check_image(content: bytes, path: Path) -> None:
    """Raise DataError unless the file begins like an image, and of a size that may be decoded."""
    with _opened(content, path):
        pass


def decoded_image(content: bytes, path: Path, size: tuple[int, int, int]) -> Array:
    """An image as `(height, width, channels)` uint8; of an animation, the first frame.

    Raises:
        DataError: it is damaged, of no known format, or has more pixels than `LRF_MAX_PIXELS`.
    """
    height, width, channels = size
    with _opened(content, path) as opened:
        large = opened.width * opened.height > _LARGE_PIXELS
        with _one_at_a_time if large else nullcontext():
            image = _eight_bit(opened).convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                # An affine map samples bilinearly between pixel centres, as tf.image.resize does;
                # Image.resize would smooth first, which the model has not been trained with.
                scale = (image.width / width, 0.0, 0.0, 0.0, image.height / height, 0.0)
                image = image.transform(
                    (width, height), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR
                )
    return np.asarray(image).reshape(size)


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
            pixels = opened.width * opened.height
            check_limit(PIXELS, pixels, f"the image {path}: number of pixels is", DataError)
            yield opened
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = str(error).partition(",")[0]
        raise DataError(
            f"the image {path}: {reason}; if it is sound, set {PIXELS} to more"
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises on a damaged file
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"cannot decode the image {path}: {reason}; repair or remove it") from None


def _eight_bit(image: Image.Image) -> Image.Image:
    # Pillow would clip 16-bit greys at 255 instead of scaling them.
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image
