"""Artifacts survive their files, whole or not at all, and say what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrf_core.artifacts import (
    Candidate,
    Cost,
    DesignSpace,
    EpochRecord,
    FinetuneRecord,
    Lineage,
)
from lrf_core.errors import ArtifactError
from lrf_core.files.atomic import write_atomically, write_atomically_with

LINEAGE = Lineage(inputs={"model": "a" * 64}, settings={"seed": 0})
RECORD = FinetuneRecord(
    lineage=LINEAGE,
    before_digest="b",
    after_digest="c",
    samples=10,
    steps=3,
    seconds=1.5,
    best_epoch=1,
    curve=(EpochRecord(epoch=1, loss=0.5, validation_loss=0.6, validation_accuracy=91.0),),
)
SPACE = DesignSpace(
    lineage=LINEAGE,
    model_digest="m",
    calibration_digest="c",
    similarity="nmse",
    layers=("a/b", "c"),
    candidates=(
        Candidate(
            layer="a/b",
            method="tucker",
            ranks=(3, 4),
            cost=Cost(params=10**12, macs=7),
            error=0.1 + 0.2,
            similarity=0.7,
            sensitivity=1e-300,
        ),
    ),
)


@pytest.mark.parametrize("artifact", [RECORD, SPACE, SPACE.model_copy(update={"candidates": ()})])
def test_round_trip_into_a_folder_and_into_a_file(artifact: object, tmp_path: Path) -> None:
    kind = type(artifact)
    assert kind.load(artifact.save(tmp_path)) == artifact  # type: ignore[attr-defined]
    assert kind.load(tmp_path) == artifact  # type: ignore[attr-defined]
    named = artifact.save(tmp_path / "sub" / "own name")  # type: ignore[attr-defined]
    assert kind.load(named) == artifact  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [FinetuneRecord, DesignSpace])
@pytest.mark.parametrize("content", [b"", b"{}", b"PAR1 not really", b'{"schema_version": 2}'])
def test_files_that_are_no_artifact(kind: type, content: bytes, tmp_path: Path) -> None:
    (tmp_path / kind.file_name).write_bytes(content)  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError) as caught:
        kind.load(tmp_path)  # type: ignore[attr-defined]
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [FinetuneRecord, DesignSpace])
def test_missing_files(kind: type, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot read"):
        kind.load(tmp_path / "gone")  # type: ignore[attr-defined]


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    content = json.loads(RECORD.model_dump_json()) | {"extra": 1}
    (tmp_path / "finetune.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="extra"):
        FinetuneRecord.load(tmp_path)


def test_digest_and_key_do_not_depend_on_the_time() -> None:
    later = LINEAGE.model_copy(update={"created": "2030-01-01T00:00:00+00:00"})
    assert later.key() == LINEAGE.key()
    assert RECORD.model_copy(update={"lineage": later}).digest() == RECORD.digest()
    other = LINEAGE.model_copy(update={"settings": {"seed": 1}})
    assert other.key() != LINEAGE.key()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_atomically(target, b"old")

    def fail(temporary: str) -> None:
        Path(temporary).write_bytes(b"half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_atomically_with(target, fail)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.json", b"")
