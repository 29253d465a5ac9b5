from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_cnn

from lrf_core.data import open_data
from lrf_core.errors import DataError


@pytest.mark.parametrize("source", ["nowhere.npz", "no/such/folder", "", "1:2", "a:b:c"])
def test_a_source_that_is_not_there_is_refused(tmp_path: Path, monkeypatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"npz file, a folder of class folders.*module:function"):
        open_data(source, tiny_cnn())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "samples.csv"
    file.write_text("1,2")
    with pytest.raises(DataError, match=r"samples\.csv is not a kind of data that is known"):
        open_data(str(file), tiny_cnn())
