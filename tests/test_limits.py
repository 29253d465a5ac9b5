"""Ceilings: what they are by default, how they are set, and what is said when one is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lrf_core.errors import DataError, SpecError
from lrf_core.files import limits


def test_sixteen_gibibytes_may_be_unpacked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LRF_MAX_UNPACKED", raising=False)
    assert limits.byte_limit() == 16 * 2**30


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("1", 1),
        ("2048", 2048),
        ("3K", 3 << 10),
        ("500m", 500 << 20),
        ("2G", 2 << 30),
        ("1t", 1 << 40),
    ],
)
def test_a_limit_is_set_in_bytes_or_binary_units(
    monkeypatch: pytest.MonkeyPatch, given: str, size: int
) -> None:
    monkeypatch.setenv("LRF_MAX_UNPACKED", given)
    assert limits.byte_limit() == size


@pytest.mark.parametrize("given", ["0", "-1", "1.5G", "much", "1GB", "0x10", "9" * 30, "\u0661"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("LRF_MAX_UNPACKED", given)
    with pytest.raises(SpecError, match=r"LRF_MAX_UNPACKED is .*whole number above 0"):
        limits.byte_limit()


def test_the_size_the_limit_and_how_to_raise_it_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRF_MAX_UNPACKED", "1K")
    limits.check_memory(1024, "x.npz unpacks to", DataError)
    with pytest.raises(DataError) as caught:
        limits.check_memory(1025, "x.npz unpacks to", DataError)
    said = str(caught.value)
    assert said.startswith("x.npz unpacks to 1,025 bytes, the limit is 1,024; ")
    assert "set LRF_MAX_UNPACKED to more" in said


def test_more_than_the_memory_that_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    free = limits.free_memory()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setenv("LRF_MAX_UNPACKED", "900T")
    with pytest.raises(DataError, match="bytes of memory are free"):
        limits.check_memory(free * 4, "x.npz unpacks to", DataError)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max"}, None),
        ({"memory.max": "1000", "memory.current": "400"}, 600),
        ({"memory.max": "100", "memory.current": "400"}, 0),
        (
            {
                "memory.max": "1000",
                "memory.current": "900",
                "memory.stat": "anon 1\ninactive_file 300\n",
            },
            400,
        ),
        (
            {"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "1"},
            999,
        ),
    ],
    ids=["no limit", "version 2", "over its limit", "with a page cache", "version 1"],
)
def test_the_memory_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(limits, "_GROUP_FOLDER", tmp_path)
    monkeypatch.setattr(limits, "_MACHINE", tmp_path / "gone")
    assert limits.free_memory() == free


def test_a_document_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "spec.yaml")
    with pytest.raises(SpecError, match="a device or a pipe"):
        limits.read_document(tmp_path / "spec.yaml", limits.SPEC, "the spec", SpecError)
