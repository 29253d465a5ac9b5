"""A state survives its file, or is not used."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from lrf_core.artifacts import EpochRecord
from lrf_core.errors import StorageError
from lrf_core.storage import open_store
from lrf_core.training.checkpoint import Checkpoints, Progress, TrainingState, open_checkpoints

DECISIVE = {"inputs": {"model": "a"}, "settings": {"epochs": 2}}
POINT = EpochRecord(epoch=0, loss=0.5, validation_loss=0.5, validation_accuracy=90.0)


def state(steps: int = 3) -> TrainingState:
    random = np.random.default_rng(steps)
    return TrainingState(
        Progress(epoch=2, batch=1, loss_sum=0.25, steps=steps, curve=(POINT,)),
        best=[random.normal(size=(3, 2)).astype(np.float32), np.array(7, np.int64)],
        learner=[random.normal(size=4)],
        optimizer=[np.array(steps, np.int64), random.normal(size=(2, 2))],
    )


def checkpoints(folder: Path, **decisive: object) -> Checkpoints:
    return open_checkpoints(str(folder), {**DECISIVE, **decisive})


def assert_equal(one: TrainingState, other: TrainingState) -> None:
    assert one.progress == other.progress
    for group in ("best", "learner", "optimizer"):
        pairs = zip(getattr(one, group), getattr(other, group), strict=True)
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_a_state_is_found_again(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(state())
    found = checkpoints(tmp_path).load()
    assert found is not None
    assert_equal(found, state())


def test_the_last_state_counts(tmp_path: Path) -> None:
    for steps in (1, 2):
        checkpoints(tmp_path).save(state(steps))
    found = checkpoints(tmp_path).load()
    assert found is not None
    assert_equal(found, state(2))


def test_a_state_of_another_training_is_not_found(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(state())
    assert checkpoints(tmp_path, seed=1).load() is None


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_damaged_state_is_not_used(
    tmp_path: Path, keep: float, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints(tmp_path).save(state())
    (file,) = tmp_path.rglob("*.npz")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content) if keep < 1 else keep)])
    with caplog.at_level(logging.WARNING, logger="lrf"):
        assert checkpoints(tmp_path).load() is None
    assert "training starts again" in caplog.text


def test_a_flipped_bit_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints(tmp_path).save(state())
    (file,) = tmp_path.rglob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    found = checkpoints(tmp_path).load()
    if found is not None:  # a bit that nothing depends on
        assert_equal(found, state())


def test_nothing_is_kept_where_nobody_asked() -> None:
    for where in (None, False):
        nowhere = open_checkpoints(where, DECISIVE)
        nowhere.save(state())
        assert nowhere.load() is None


def test_workers_that_do_not_lead_only_read(tmp_path: Path) -> None:
    reader = open_checkpoints(str(tmp_path), DECISIVE, writes=False)
    reader.save(state())
    assert reader.load() is None
    checkpoints(tmp_path).save(state())
    assert reader.load() is not None


def test_a_place_that_cannot_be_used_is_said_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"finetune\.checkpoint"):
        open_checkpoints(str(tmp_path / "file"), DECISIVE)


def test_a_checkpoint_is_a_plain_file_of_arrays(tmp_path: Path) -> None:
    checkpoints(tmp_path).save(state())
    (key,) = open_store(str(tmp_path)).list("finetune-1/")
    with np.load(tmp_path / key, allow_pickle=False) as arrays:
        assert {name.split("/")[0] for name in arrays} == {"about", "best", "learner", "optimizer"}
