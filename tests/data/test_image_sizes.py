"""Images that claim to be huge, hold bombs, or are no images: refused before they are decoded."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_cnn

from lrf_core.data import open_data
from lrf_core.errors import DataError

SIDE = 60_000
TOO_MANY = "LRF_MAX_PIXELS"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn((8, 6, 3), classes=2)


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png(width: int = 8, height: int = 6, *more: bytes) -> bytes:
    pixels = zlib.compress(bytes((width * 3 + 1) * min(height, 10)), 9)
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (chunk(b"IHDR", size), *more, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def saved(tmp_path: Path, suffix: str, image: Image.Image | None = None, **how: object) -> bytes:
    file = tmp_path / f"saved{suffix}"
    (image or Image.new("RGB", (8, 6))).save(file, **how)
    return file.read_bytes()


def gif(tmp_path: Path) -> bytes:
    content = saved(tmp_path, ".gif")
    return content[:6] + struct.pack("<HH", SIDE, SIDE) + content[10:]


def bmp(tmp_path: Path) -> bytes:
    content = saved(tmp_path, ".bmp")
    return content[:18] + struct.pack("<ii", SIDE, SIDE) + content[26:]


def jpeg(tmp_path: Path) -> bytes:
    content = saved(tmp_path, ".jpeg")
    start = content.find(b"\xff\xc0") + 5
    return content[:start] + struct.pack(">HH", SIDE, SIDE) + content[start + 4 :]


def tiff(tmp_path: Path) -> bytes:
    content = saved(tmp_path, ".tiff")
    for tag in (256, 257):
        start = content.find(struct.pack("<HHI", tag, 4, 1))
        start = start if start >= 0 else content.find(struct.pack("<HHI", tag, 3, 1))
        kind = struct.pack("<HHI", tag, 4, 1)
        content = content[:start] + kind + struct.pack("<I", SIDE) + content[start + 12 :]
    return content


def webp(tmp_path: Path) -> bytes:
    """An extended header whose canvas is larger than any image in it."""
    still = saved(tmp_path, ".webp", lossless=True)[12:]
    size = (16_000 - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + size + still
    return b"RIFF" + struct.pack("<I", len(body)) + body


HARMFUL: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "png": (".png", lambda _: png(SIDE, SIDE), TOO_MANY),
    "just over the limit": (".png", lambda _: png(9_000, 10_000), TOO_MANY),
    "gif": (".gif", gif, TOO_MANY),
    "bmp": (".bmp", bmp, TOO_MANY),
    "jpeg": (".jpeg", jpeg, TOO_MANY),
    "tiff": (".tiff", tiff, TOO_MANY),
    "webp": (".webp", webp, "cannot decode the image|LRF_MAX_PIXELS"),
    "a text of 200 MB": (
        ".png",
        lambda _: png(8, 6, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20), 9))),
        "cannot decode the image .*too large",
    ),
    "a program in PostScript": (
        ".png",
        lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\nshowpage\n",
        "cannot decode the image",
    ),
    "cut off": (".jpeg", lambda folder: saved(folder, ".jpeg")[:-200], "cannot decode the image"),
}


def folder_with(tmp_path: Path, content: bytes, suffix: str) -> Path:
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "images" / label / f"{number}.png").write_bytes(png())
    (tmp_path / "images" / "a" / f"x{suffix}").write_bytes(content)
    return tmp_path / "images"


@pytest.mark.parametrize("case", HARMFUL)
def test_a_harmful_image_is_refused(tmp_path: Path, model: keras.Model, case: str) -> None:
    suffix, make, message = HARMFUL[case]
    folder = folder_with(tmp_path, make(tmp_path), suffix)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(folder), model)
    assert "\n" not in str(caught.value)
    assert f"x{suffix}" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize("mode", ["CMYK", "P", "LA", "RGBA", "1", "YCbCr", "F", "I;16"])
def test_images_of_every_mode_are_read(tmp_path: Path, model: keras.Model, mode: str) -> None:
    image = Image.new(mode, (8, 6))
    suffix = ".jpeg" if mode == "YCbCr" else ".tiff"
    folder = folder_with(tmp_path, saved(tmp_path, suffix, image), suffix)
    data = open_data(str(folder), model)
    assert data.train.count + data.test.count == 21


def test_of_many_frames_the_first_is_read(tmp_path: Path, model: keras.Model) -> None:
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in range(200)]
    content = saved(tmp_path, ".gif", frames[50], save_all=True, append_images=frames[51:])
    data = open_data(str(folder_with(tmp_path, content, ".gif")), model)
    samples = np.concatenate([data.train.arrays()[0], data.test.arrays()[0]])
    assert samples.max() == 50


def test_larger_images_may_be_allowed(
    tmp_path: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path, saved(tmp_path, ".png", Image.new("RGB", (80, 60))), ".png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back at the end
    monkeypatch.setenv("LRF_MAX_PIXELS", "4799")
    with pytest.raises(DataError, match=r"4,800, the limit is 4,799|4800 pixels"):
        open_data(str(folder), model)
    monkeypatch.setenv("LRF_MAX_PIXELS", "4800")
    assert open_data(str(folder), model).train.count == 17


def test_a_pipe_named_like_an_image_is_not_waited_for(tmp_path: Path, model: keras.Model) -> None:
    folder = folder_with(tmp_path, png(), ".png")
    os.mkfifo(folder / "a" / "pipe.png")
    with pytest.raises(DataError, match="no plain file"):
        open_data(str(folder), model)


def test_a_file_longer_than_any_image_is_not_read(tmp_path: Path, model: keras.Model) -> None:
    folder = folder_with(tmp_path, png(), ".png")
    with (folder / "a" / "x.png").open("ab") as file:
        file.truncate(10**12)  # with a hole: it takes no space
    with pytest.raises(DataError, match=r"1,000,000,000,000 bytes, the limit is .*LRF_MAX_PIXELS"):
        open_data(str(folder), model)
