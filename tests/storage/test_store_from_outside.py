"""A kind of store that a user registers holds releases and inputs like those of the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import Trained

import lrf_core as lrf
from lrf_core.models.load import model_digest
from lrf_core.storage import Store, address, open_store, register_store
from lrf_core.storage.local import LocalStore


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """`ours://bucket/prefix`: a folder for each bucket."""
    monkeypatch.setattr(address, "_openers", dict(address._openers))
    monkeypatch.setenv("LRF_CACHE", str(tmp_path / "cache"))
    register_store("ours", lambda bucket, prefix: LocalStore(tmp_path / bucket / prefix))
    return open_store("ours://models/below")


def test_models_and_data_are_read_from_it(registered: Store, trained: Trained) -> None:
    registered.put_file("model.keras", trained.model_file)
    registered.put_file("data.npz", trained.data_file)

    model = lrf.load_model("ours://models/below/model.keras")
    data = lrf.open_data("ours://models/below/data.npz", model)

    assert model_digest(model) == model_digest(trained.model)
    assert data.digest == lrf.open_data(str(trained.data_file), model).digest


def test_settings_name_it(registered: Store) -> None:
    assert lrf.PublishSpec(to="ours://models/below").to == "ours://models/below"
    assert list(open_store("ours://models").folders()) == []


def test_a_scheme_is_taken_once() -> None:
    with pytest.raises(ValueError, match="s3:// are of another kind already"):
        register_store("s3", lambda bucket, prefix: LocalStore(Path(bucket)))
    with pytest.raises(lrf.LrfError, match="ours://bucket is of an unknown kind"):
        open_store("ours://bucket")
