"""Models and data as pipelines hand them over: files without a suffix, or alone in a folder."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import Trained, tiny_cnn

import lrf_core as lrf
from lrf_core.models.load import model_digest


@pytest.mark.filterwarnings("ignore")  # Keras calls .h5 legacy
@pytest.mark.parametrize("sandbox", [True, False])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["model", "folder/model", "folder/trained{}"])
def test_a_model_is_recognized_by_its_content(
    name: str, suffix: str, sandbox: bool, tmp_path: Path
) -> None:
    model = tiny_cnn()
    model.save(tmp_path / f"saved{suffix}")
    artifact = tmp_path / name.format(suffix)
    artifact.parent.mkdir(exist_ok=True)
    shutil.move(tmp_path / f"saved{suffix}", artifact)

    place = artifact.parent if artifact.parent != tmp_path else artifact
    assert model_digest(lrf.load_model(place, sandbox=sandbox)) == model_digest(model)


def test_a_model_that_is_compiled_with_an_optimizer(trained: Trained, tmp_path: Path) -> None:
    model = keras.models.clone_model(trained.model)
    model.compile("adam", "sparse_categorical_crossentropy")
    samples, labels = trained.data.train.arrays()
    model.fit(samples[:64], labels[:64], verbose=0)
    model.save(tmp_path / "saved.keras")
    shutil.move(tmp_path / "saved.keras", tmp_path / "model")

    assert model_digest(lrf.load_model(tmp_path / "model")) == model_digest(model)


def test_no_model_or_several_in_a_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(lrf.LrfError, match=r"no model at .*; give the path of"):
        lrf.load_model(tmp_path)
    for name in ("a.keras", "b.keras"):
        tiny_cnn().save(tmp_path / name)
    with pytest.raises(lrf.LrfError, match=r"holds 2 model files \(a.keras, b.keras\); name one"):
        lrf.load_model(tmp_path)


@pytest.mark.parametrize("place", ["data", "folder/data", "folder/data.npz"])
def test_arrays_are_recognized_by_their_content(
    place: str, trained: Trained, tmp_path: Path
) -> None:
    artifact = tmp_path / place
    artifact.parent.mkdir(exist_ok=True)
    shutil.copy(trained.data_file, artifact)

    given = artifact.parent if artifact.parent != tmp_path else artifact
    found = lrf.open_data(str(given), trained.model)
    assert found.digest == lrf.open_data(str(trained.data_file), trained.model).digest


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_archives_are_recognized_by_their_content(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for label in ("a", "b", "c", "d"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (16, 16), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    made = shutil.make_archive(str(tmp_path / "made"), kind, tmp_path / "images")
    shutil.move(made, tmp_path / "data")

    model = tiny_cnn()
    found = lrf.open_data(str(tmp_path / "data"), model)
    assert (found.train.count, found.test.count) == (48, 16)
    assert tarfile.is_tarfile(tmp_path / "data") == (kind != "zip")


def test_what_is_no_data_is_named(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x,y\n1,2\n")
    with pytest.raises(lrf.LrfError, match=r"is not a kind of data that is known; give an .npz"):
        lrf.open_data(str(tmp_path / "data"), trained.model)
