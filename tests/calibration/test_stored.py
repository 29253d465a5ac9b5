"""Moments that do not fit into memory lie in temporary files, and are the same to the last bit."""

from __future__ import annotations

import errno
import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny import Trained, tiny_arrays, tiny_cnn

import lrf_core as lrf
from lrf_core.calibration import moments_of_all
from lrf_core.calibration.memory import DEFAULT_MEMORY_BYTES, GIB, bytes_of_moments
from lrf_core.calibration.stored import MomentFiles
from lrf_core.data import Split
from lrf_core.errors import ArtifactError
from lrf_core.methods import Moments
from lrf_core.models.inventory import take_inventory

MODEL, SAMPLES = tiny_cnn(), Split.of(tiny_arrays(50)[0])
RECORDS = [record for record in take_inventory(MODEL, ("tucker", "svd")) if record.methods]
LITTLE = 5 * max(bytes_of_moments(record, SAMPLES.count) for record in RECORDS)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_files_hold_what_memory_would(temporary: Path) -> None:
    found, expected = (
        moments_of_all(MODEL, RECORDS, SAMPLES, memory_bytes=memory, batch_size=16)
        for memory in (LITTLE, DEFAULT_MEMORY_BYTES)
    )

    assert isinstance(found, MomentFiles)
    assert isinstance(expected, dict)
    assert list(found) == list(expected)
    for path, moments in found.items():
        np.testing.assert_array_equal(moments.second, expected[path].second)
        np.testing.assert_array_equal(moments.rows, expected[path].rows)
        np.testing.assert_array_equal(moments.gradient, expected[path].gradient)
        assert moments.rows_seen == expected[path].rows_seen
    assert len(list(temporary.glob("lrf-moments-*/*.npz"))) == len(RECORDS)

    del found
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_named_and_nothing_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    moments = Moments(np.eye(2), None, np.zeros((1, 2), np.float32), 1)

    with pytest.raises(ArtifactError, match=r"No space left.*TMPDIR.*explore.memory_gib"):
        MomentFiles([{"layer": moments}])
    assert list(temporary.iterdir()) == []


def test_a_plan_does_not_depend_on_the_memory(trained: Trained) -> None:
    models = []
    for memory_gib in (4.0, LITTLE / GIB):
        explore = lrf.ExploreSpec(
            samples=SAMPLES.count, batch_size=16, memory_gib=memory_gib, ranks_per_mode=4
        )
        analysis = lrf.analyze(trained.model, trained.data, settings=explore)
        space = lrf.explore(trained.model, trained.data, analysis, settings=explore)
        _, model = lrf.decompose(
            trained.model, trained.data, [space], lrf.Goal(params_reduction=0.5)
        )
        models.append(model)

    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
