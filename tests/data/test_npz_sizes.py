"""Arrays whose headers, sizes or zip entries lie: nothing is read before they were compared."""

from __future__ import annotations

import io
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.data import npz, open_data
from lrf_core.errors import DataError

SHAPE = (8, 6, 3)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn(SHAPE)


def header(descr: object, shape: object, version: int = 1, length: int | None = None) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    packed = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + packed + text


def saved(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


Y = saved(np.arange(40) % 4)
X = saved(np.zeros((40, *SHAPE), np.uint8))


def zipped(*members: tuple[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def with_x(x: bytes) -> bytes:
    return zipped(("x.npy", x), ("y.npy", Y))


def overstated() -> bytes:
    """Header and directory agree on 40 GB that a few bytes cannot unpack to."""
    shape = (30 * 10**7, *SHAPE)
    x = header("|u1", shape)
    claimed = len(x) + int(np.prod(shape))
    content = with_x(x)
    field = struct.pack("<III", zlib.crc32(x), 0, 0)[:4]
    start = content.rfind(b"PK\x01\x02", 0, content.rfind(b"PK\x01\x02"))
    assert content[start + 16 : start + 20] == field
    return content[: start + 24] + struct.pack("<I", claimed % 2**32) + content[start + 28 :]


def encrypted() -> bytes:
    content = bytearray(with_x(X))
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return zipped(("x.npy", X), ("x.npy", X), ("y.npy", Y))


LIES: dict[str, tuple[Callable[[], bytes], str]] = {
    "more than there is": (
        lambda: with_x(header("|u1", (10**9, *SHAPE)) + bytes(99)),
        "header of 144,000,000,000 bytes of values, but 99 in the file",
    ),
    "less than there is": (
        lambda: with_x(header("|u1", (1, *SHAPE)) + bytes(10**6)),
        "header of 144 bytes of values, but 1,000,000 in the file",
    ),
    "more than it can unpack to": (overstated, "in the file"),
    "negative": (lambda: with_x(header("|u1", (-1, *SHAPE))), r"has shape \(-1, 8, 6, 3\)"),
    "beyond any memory": (lambda: with_x(header("|u1", (10**15, 10**15))), "has shape"),
    "many axes": (lambda: with_x(header("|u1", (1,) * 200) + b"1"), "has shape"),
    "values of gigabytes": (
        lambda: with_x(header("<U500000000", (40,))),
        "of 80,000,000,000",
    ),
    "values of no size": (lambda: with_x(header("|S0", (10**12,))), "plain number arrays"),
    "objects": (lambda: with_x(header("|O", (40,)) + b"cos\nsystem\n."), "Python objects"),
    "fields with objects": (
        lambda: with_x(header([("a", "<f4"), ("b", "|O")], (40,))),
        "Python objects",
    ),
    "fields": (lambda: with_x(header([("a", "<f4")], (40,)) + bytes(160)), "plain number arrays"),
    "a header of 4 GB": (
        lambda: with_x(header("|u1", (40, *SHAPE), version=2, length=2**32 - 1)),
        "damaged header",
    ),
    "a header of 10 MB": (
        lambda: with_x(header("|u1", "9" * 10**7, version=2)),
        "damaged header",
    ),
    "a header of parentheses": (lambda: with_x(header("|u1", 0)[:10] + b"(" * 9000), "damaged"),
    "a header of code": (
        lambda: with_x(b"\x93NUMPY\x01\x00" + struct.pack("<H", 22) + b"__import__('os').abort"),
        "damaged header",
    ),
    "a newer version": (lambda: with_x(header("|u1", (40, *SHAPE), version=3)), "damaged header"),
    "encrypted": (encrypted, "encrypted or compressed in an unusual way"),
    "lzma": (
        lambda: zipped(("x.npy", X), ("y.npy", Y), kind=zipfile.ZIP_LZMA),
        "compressed in an unusual way",
    ),
    "twice": (twice, "holds 'x' twice"),
    "under two names": (lambda: zipped(("x.npy", X), ("x", X), ("y.npy", Y)), "holds 'x' twice"),
    "a zip": (lambda: zipped(("x.npy", zipped(("x.npy", X))), ("y.npy", Y)), "is no array"),
    "a checksum": (lambda: with_x(X).replace(struct.pack("<I", zlib.crc32(X)), b"1234"), "CRC"),
    "of many members": (
        lambda: zipped(*((f"{i:060}", b"") for i in range(45_000)), kind=zipfile.ZIP_STORED),
        "its directory has more than",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused_at_once(tmp_path: Path, model: keras.Model, lie: str) -> None:
    make, message = LIES[lie]
    file = tmp_path / "samples.npz"
    file.write_bytes(make())
    before, started = peak_bytes(), time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(file), model)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert time.monotonic() - started < 5
    assert peak_bytes() - before < 64 << 20


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def bomb(file: Path, shape: tuple[int, ...], value: bytes = b"\0") -> None:
    """An array of one repeated byte, packed without it being in memory as a whole."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(header("|u1", shape))
            left = int(np.prod(shape))
            while left:
                member.write(value * min(left, 1 << 20))
                left -= min(left, 1 << 20)
        archive.writestr("y.npy", saved(np.arange(shape[0]) % 4))


def test_samples_that_do_not_fit_the_model_are_not_unpacked(
    tmp_path: Path, model: keras.Model
) -> None:
    file = tmp_path / "samples.npz"
    bomb(file, (40, 1000, 1000, 5))
    before = peak_bytes()
    with pytest.raises(DataError, match=r"has shape \(40, 1000, 1000, 5\), but the model takes"):
        open_data(str(file), model)
    assert peak_bytes() - before < 32 << 20


def test_more_than_the_limit_is_not_unpacked(
    tmp_path: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "samples.npz"
    bomb(file, (10**6, *SHAPE))
    monkeypatch.setenv("LRF_MAX_UNPACKED", "100M")
    before = peak_bytes()
    with pytest.raises(
        DataError,
        match=r"unpacks to 152,000,000 bytes, the limit is 104,857,600; .*LRF_MAX_UNPACKED",
    ):
        open_data(str(file), model)
    assert peak_bytes() - before < 32 << 20


@pytest.mark.slow
def test_a_small_file_of_much_data_is_read_at_about_its_size(
    tmp_path: Path, model: keras.Model
) -> None:
    file, shape = tmp_path / "samples.npz", (10**7, *SHAPE)
    bomb(file, shape)
    assert file.stat().st_size < 20 << 20
    before = peak_bytes()
    assert open_data(str(file), model).train.count == 8_000_000
    assert peak_bytes() - before < 1.5 * np.prod(shape)


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_that_are_not_compressed_are_used_from_the_file(
    tmp_path: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    x = np.asarray(np.random.default_rng(0).normal(size=(40, *SHAPE)), np.float32, order)
    np.savez(tmp_path / "samples.npz", x=x, y=np.arange(40) % 4)
    read = open_data(str(tmp_path / "samples.npz"), model)
    monkeypatch.setattr(npz, "MAPPED_BYTES", 1000)
    monkeypatch.setenv("LRF_MAX_UNPACKED", "1K")  # the labels alone are in memory
    mapped = open_data(str(tmp_path / "samples.npz"), model)
    assert mapped.digest == read.digest
    assert np.array_equal(mapped.test.arrays()[0], read.test.arrays()[0])


def test_a_file_used_in_place_is_compared_with_its_checksum(
    tmp_path: Path, model: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "MAPPED_BYTES", 1000)
    file = tmp_path / "samples.npz"
    np.savez(file, x=np.zeros((40, *SHAPE), np.uint8), y=np.arange(40) % 4)
    content = bytearray(file.read_bytes())
    content[2000:2010] = b"0123456789"
    file.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        open_data(str(file), model)
