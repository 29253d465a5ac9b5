"""Archives of image folders: what is in them is read, and what would do harm is refused."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from seaweed import Seaweed
from tiny import tiny_cnn

from lrf_core.data import open_data
from lrf_core.errors import DataError, SpecError
from lrf_core.storage import open_store
from lrf_core.storage.cache import cache_folder

KINDS = {".tar": "tar", ".tar.gz": "gztar", ".tgz": "gztar", ".zip": "zip"}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn((4, 4, 3), classes=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archived") / "pictures"
    for part in ("train", "test"):
        for label, name in enumerate("ab"):
            (folder / part / name).mkdir(parents=True)
            for number in range(6):
                pixels = np.full((4, 4, 3), 40 * label + number, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def packed(folder: Path, target: Path, suffix: str, wrapped: bool) -> Path:
    root, base = (folder.parent, folder.name) if wrapped else (folder, ".")
    made = shutil.make_archive(str(target / "made"), KINDS[suffix], root, base)
    return Path(made).rename(target / f"images{suffix}")


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_archive_is_what_the_folder_is(
    images: Path, model: keras.Model, tmp_path: Path, suffix: str, wrapped: bool
) -> None:
    path = packed(images, tmp_path, suffix, wrapped)

    data, known = open_data(str(path), model), open_data(str(images), model)
    assert data.digest == known.digest
    assert data.source == str(path)
    assert [data.train.count, data.test.count] == [12, 12]


def test_an_archive_may_be_in_a_bucket(
    images: Path, model: keras.Model, tmp_path: Path, s3_settings: Seaweed
) -> None:
    store = open_store(f"s3://{s3_settings.bucket}/archives")
    store.put_file("images.tgz", packed(images, tmp_path, ".tgz", wrapped=True))

    data = open_data(store.url("images.tgz"), model)
    assert data.digest == open_data(str(images), model).digest
    assert data.source == store.url("images.tgz")


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def understated_zip() -> bytes:
    """A member that unpacks to more than its header says."""
    size, small = (1 << 20).to_bytes(4, "little"), (10).to_bytes(4, "little")
    return zip_of(("a/x.png", bytes(1 << 20))).replace(size, small)


UNSAFE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "tar: above": (".tar", lambda: tar_of((tar_member("../out.png"), b"x")), "leads elsewhere"),
    "tar: absolute": (".tar", lambda: tar_of((tar_member("/etc/o.png"), b"x")), "leads elsewhere"),
    "tar: link": (".tar", lambda: tar_of((tar_member("a", tarfile.SYMTYPE, "/"), b"")), "a link"),
    "tar: hard link": (
        ".tar",
        lambda: tar_of((tar_member("a", tarfile.LNKTYPE, "b"), b"")),
        "link",
    ),
    "tar: device": (".tar", lambda: tar_of((tar_member("a", tarfile.CHRTYPE), b"")), "a device"),
    "tar: fifo": (".tar", lambda: tar_of((tar_member("a", tarfile.FIFOTYPE), b"")), "a device"),
    "tar: twice": (".tar", lambda: tar_of(*[(tar_member("a"), b"x")] * 2), "two files of one name"),
    "tar: file as folder": (
        ".tar",
        lambda: tar_of((tar_member("a"), b"x"), (tar_member("a/b"), b"x")),
        "two files of one name",
    ),
    "tar: damaged": (
        ".tar.gz",
        lambda: gzip.compress(bytes(range(256)) * 9),
        "no readable archive",
    ),
    "tar: cut": (
        ".tgz",
        lambda: gzip.compress(tar_of((tar_member("a"), b"x")))[:-9],
        "no readable",
    ),
    "tar: no gzip": (".tgz", lambda: b"not packed", "no readable archive"),
    "tar: bomb": (
        ".tar.gz",
        lambda: gzip.compress(tar_of((tar_member("a/x.png"), bytes(80 << 20))), 9),
        "as a zip bomb does",
    ),
    "tar: long header": (
        ".tar.gz",
        lambda: gzip.compress(tar_of((tar_member("x", tarfile.XHDTYPE), b"9" * (2 << 20)))),
        "no readable archive",
    ),
    "zip: above": (".zip", lambda: zip_of(("a/../../out.png", b"x")), "leads elsewhere"),
    "zip: absolute": (".zip", lambda: zip_of(("/etc/out.png", b"x")), "leads elsewhere"),
    "zip: backslash": (".zip", lambda: zip_of(("a\\..\\out.png", b"x")), "leads elsewhere"),
    "zip: link": (".zip", lambda: zip_of((zip_link("a"), b"/etc/passwd")), "a link or a device"),
    "zip: bomb": (".zip", lambda: zip_of(("a/x.png", bytes(80 << 20))), "as a zip bomb does"),
    "zip: understated": (".zip", understated_zip, "no readable archive"),
    "zip: damaged": (".zip", lambda: b"PK\x03\x04 no zip", "no readable archive"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_what_would_do_harm_is_refused_in_one_line(
    model: keras.Model, tmp_path: Path, case: str
) -> None:
    suffix, content, message = UNSAFE[case]
    path = tmp_path / "in" / f"images{suffix}"
    path.parent.mkdir()
    path.write_bytes(content())
    with pytest.raises(DataError) as caught:
        open_data(str(path), model)

    said = str(caught.value)
    assert message in said
    assert str(path) in said
    assert "\n" not in said
    assert [found.name for found in tmp_path.iterdir()] == ["in"]
    assert not [found for found in cache_folder().rglob("*") if found.is_file()]


def test_the_whole_is_limited_too(
    images: Path, model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(images, tmp_path, ".zip", wrapped=False)
    monkeypatch.setenv("LRF_UNPACK_GIB", "0.0000001")
    with pytest.raises(DataError, match=r"GiB, the limit in LRF_UNPACK_GIB"):
        open_data(str(path), model)
    monkeypatch.setenv("LRF_UNPACK_GIB", "much")
    with pytest.raises(SpecError, match="write how many GiB"):
        open_data(str(path), model)
    monkeypatch.delenv("LRF_UNPACK_GIB")
    monkeypatch.setenv("LRF_MAX_FILES", "3")
    with pytest.raises(DataError, match=r"number of files is .*the limit is 3; .*LRF_MAX_FILES"):
        open_data(str(path), model)


def tar_with(type_: bytes, content: bytes, **settings: str) -> bytes:
    """A tar of one file with a header of another kind before it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a")
        member.pax_headers = settings
        member.type, member.size = type_, len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_kind(kind: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("a/0.png", bytes(1000))
    return buffer.getvalue()


def encrypted_zip() -> bytes:
    content = bytearray(zip_of(("a/0.png", b"x")))
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def overlapping_zip() -> bytes:
    """Many entries of the directory that are one member: a bomb of little in the file."""
    content = zip_of(("a/0.png", bytes(8 << 20)))
    start = content.find(b"PK\x01\x02")
    entry, end = content[start:-22], content[-22:]
    count = 200
    end = end[:8] + struct.pack("<HHI", count, count, count * len(entry)) + end[16:]
    return content[:start] + entry * count + end


HEADERS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "tar: holes, GNU": (".tar", lambda: tar_with(tarfile.GNUTYPE_SPARSE, bytes(512)), "holes"),
    "tar: holes, pax 1.0": (
        ".tar",
        lambda: tar_with(
            tarfile.REGTYPE, b"1\n0\n", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        ),
        "holes",
    ),
    "tar: a size that is none": (
        ".tar",
        lambda: tar_with(tarfile.REGTYPE, b"x", **{"GNU.sparse.size": "x"}),
        "no readable archive",
    ),
    "tar: headers of headers": (
        ".tar.gz",
        lambda: gzip.compress(b"".join(tar_with(b"x", b"")[:512] for _ in range(5000))),
        "no readable archive",
    ),
    "tar: a header of digits": (
        ".tar",
        lambda: tar_with(tarfile.XHDTYPE, b"1" * (1 << 20)),
        "a header is too long",
    ),
    "zip: no name": (".zip", lambda: zip_of((zipfile.ZipInfo(""), b"x")), "leads elsewhere"),
    "zip: a long name": (".zip", lambda: zip_of(("x" * 300, b"x")), "name that is too long"),
    "zip: deep": (".zip", lambda: zip_of(("a/" * 100 + "x", b"x")), "name that is too long"),
    "zip: a line in its name": (".zip", lambda: zip_of(("a\nb.png", b"x")), "leads elsewhere"),
    "zip: lzma": (".zip", lambda: zip_kind(zipfile.ZIP_LZMA), "compressed in an unusual way"),
    "zip: bzip2": (".zip", lambda: zip_kind(zipfile.ZIP_BZIP2), "compressed in an unusual way"),
    "zip: encrypted": (".zip", encrypted_zip, "is encrypted"),
    "zip: overlapping": (".zip", overlapping_zip, "as a zip bomb does"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_what_would_take_memory_or_time_is_refused_at_once(
    model: keras.Model, tmp_path: Path, case: str
) -> None:
    suffix, content, message = HEADERS[case]
    path = tmp_path / f"images{suffix}"
    path.write_bytes(content())
    started = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(path), model)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


def test_a_directory_of_more_entries_than_files_may_be_is_not_read(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "images.zip"
    path.write_bytes(zip_of(*((f"{number:0100}", b"") for number in range(9000))))
    monkeypatch.setenv("LRF_MAX_FILES", "100")
    with pytest.raises(DataError, match=r"directory has more than 1,048,576 bytes.*LRF_MAX_FILES"):
        open_data(str(path), model)


def test_members_of_a_tar_are_not_collected_in_memory(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    real = tarfile.TarFile.next

    def watched(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        kept.append(len(archive.members))
        return real(archive)

    monkeypatch.setattr(tarfile.TarFile, "next", watched)
    path = tmp_path / "images.tar"
    path.write_bytes(tar_of(*((tar_member(f"a/{number}.png"), b"x") for number in range(100))))
    with pytest.raises(DataError):
        open_data(str(path), model)
    assert max(kept) <= 1
    assert len(kept) > 100
