from __future__ import annotations

import logging
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_cnn

from lrf_core.data import folder as folder_module
from lrf_core.data import open_data
from lrf_core.errors import DataError

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return tiny_cnn((8, 6, 3), classes=3)


def pixels(seed: int, size: tuple[int, int] = (8, 6), channels: int = 3) -> np.ndarray:
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write_classes(root: Path, each: int, seed: int = 0, suffix: str = ".png", **kinds) -> Path:
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(each):
            image = Image.fromarray(pixels(seed + 100 * label + i, **kinds))
            image.save(root / name / f"{i:03}{suffix}")
    return root


def test_one_folder_is_divided_80_to_20(tmp_path: Path, model) -> None:
    data = open_data(str(write_classes(tmp_path, 10)), model)
    assert (data.train.count, data.test.count) == (24, 6)
    assert data.class_names == CLASSES
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert data.train.arrays()[0].shape == (24, 8, 6, 3)
    assert data.train.arrays()[0].dtype == np.uint8


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_train_and_test_folders_are_kept_apart(tmp_path: Path, model, test_name: str) -> None:
    write_classes(tmp_path / "train", 4)
    write_classes(tmp_path / test_name, 2, seed=5000)
    data = open_data(str(tmp_path), model)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.train.read(np.array([5]))[0], pixels(101))
    assert np.array_equal(data.test.read(np.array([5]))[0], pixels(5201))


def test_test_goes_before_validation(tmp_path: Path, model, caplog) -> None:
    for name, each in (("train", 4), ("test", 2), ("validation", 1)):
        write_classes(tmp_path / name, each)
    with caplog.at_level(logging.INFO, logger="lrf"):
        assert open_data(str(tmp_path), model).test.count == 6
    assert "leaving validation/ out" in caplog.text


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_classes(tmp_path, 10)
    (tmp_path / "cat").rename(tmp_path / "train")
    data = open_data(str(tmp_path), tiny_cnn((8, 6, 3), classes=3))
    assert data.class_names == ("ant", "bee", "train")


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".JPG", ".jpeg", ".png", ".tiff", ".webp"])
def test_each_file_format_is_read(tmp_path: Path, model, suffix: str) -> None:
    data = open_data(str(write_classes(tmp_path, 5, suffix=suffix)), model)
    assert data.train.count + data.test.count == 15
    assert data.train.arrays()[0].std() > 20


def test_files_that_are_no_images_by_name_are_left_out(tmp_path: Path, model) -> None:
    write_classes(tmp_path, 5)
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "ant" / "._000.png").write_bytes(b"x")
    data = open_data(str(tmp_path), model)
    assert data.train.count + data.test.count == 15


@pytest.mark.parametrize("color", [1, 3])
@pytest.mark.parametrize("size", [(8, 6), (5, 4), (31, 23)], ids=["same", "smaller", "larger"])
@pytest.mark.parametrize("channels", [1, 3, 4], ids=["grey", "rgb", "rgba"])
def test_pixels_are_those_that_keras_reads(
    tmp_path: Path, color: int, size: tuple[int, int], channels: int
) -> None:
    write_classes(tmp_path / "train", 3, size=size, channels=channels)
    write_classes(tmp_path / "test", 1)
    data = open_data(str(tmp_path), tiny_cnn((8, 6, color), classes=3))
    expected = keras.utils.image_dataset_from_directory(
        str(tmp_path / "train"),
        image_size=(8, 6),
        color_mode="grayscale" if color == 1 else "rgb",
        shuffle=False,
        verbose=False,
    )
    images, labels = next(iter(expected))
    samples, ids = data.train.arrays()
    assert np.array_equal(ids, labels)
    # Keras keeps the fractions that resizing makes, and rounds its weights for grey otherwise.
    assert np.abs(samples - images.numpy()).max() < (2.1 if color == 1 else 1.1)


def test_sixteen_bit_greys_are_scaled(tmp_path: Path) -> None:
    write_classes(tmp_path, 5, channels=1)
    values = np.arange(48, dtype=np.uint16).reshape(8, 6) * 1000
    Image.fromarray(values).save(tmp_path / "ant" / "000.png")
    data = open_data(str(tmp_path), tiny_cnn((8, 6, 1), classes=3))
    samples = np.concatenate([data.train.arrays()[0], data.test.arrays()[0]])
    assert any(np.array_equal(x[..., 0], values >> 8) for x in samples)


def test_images_read_when_needed_are_the_same(tmp_path: Path, model, monkeypatch) -> None:
    write_classes(tmp_path, 10, size=(20, 30))
    kept = open_data(str(tmp_path), model, seed=1)
    monkeypatch.setattr(folder_module, "MEMORY_BYTES", 100)
    read = open_data(str(tmp_path), model, seed=1)
    assert read.digest == kept.digest
    assert np.array_equal(read.test.arrays()[0], kept.test.arrays()[0])
    chosen = np.array([5, 0, 5])
    assert np.array_equal(read.train.read(chosen), kept.train.read(chosen))
    assert read.train.read(chosen[:0]).shape == (0, 8, 6, 3)


def test_the_seed_decides_the_division(tmp_path: Path, model) -> None:
    write_classes(tmp_path, 10)
    first, again, other = (open_data(str(tmp_path), model, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.test.arrays()[0], again.test.arrays()[0])
    assert not np.array_equal(first.test.arrays()[0], other.test.arrays()[0])


def test_the_digest_is_of_names_and_contents(tmp_path: Path, model) -> None:
    root = write_classes(tmp_path / "here", 5)
    digest = open_data(str(root), model).digest
    shutil.copytree(root, tmp_path / "there")
    assert open_data(str(tmp_path / "there"), model).digest == digest
    (root / "ant" / "000.png").rename(root / "ant" / "900.png")
    renamed = open_data(str(root), model).digest
    Image.fromarray(pixels(999)).save(root / "ant" / "900.png")
    assert len({digest, renamed, open_data(str(root), model).digest}) == 3


def spoil_empty_class(root: Path) -> None:
    for file in (root / "train" / "bee").iterdir():
        file.unlink()


def spoil_truncated(root: Path) -> None:
    file = root / "train" / "bee" / "001.png"
    file.write_bytes(file.read_bytes()[:-60])


BAD = {
    "no class folders": (lambda root: shutil.rmtree(root) or root.mkdir(), "no class folders"),
    "no test": (lambda root: shutil.rmtree(root / "test"), "no test/, val/ or validation/"),
    "empty class": (spoil_empty_class, "train/bee holds no images"),
    "class missing in test": (lambda root: shutil.rmtree(root / "test" / "bee"), "differ in bee"),
    "class too many": (
        lambda root: [(root / part / "dog").mkdir() for part in ("train", "test")],
        "has 4 class folders .*model has 3 outputs",
    ),
    "truncated": (spoil_truncated, r"cannot decode the image .*train/bee/001\.png"),
    "no image": (
        lambda root: (root / "test" / "cat" / "000.png").write_text("hello"),
        r"cannot decode the image .*test/cat/000\.png",
    ),
    "empty file": (
        lambda root: (root / "test" / "cat" / "000.png").write_bytes(b""),
        r"cannot decode the image .*test/cat/000\.png",
    ),
    "dangling link": (
        lambda root: (root / "test" / "cat" / "009.png").symlink_to(root / "gone.png"),
        r"cannot read the image .*test/cat/009\.png",
    ),
    "too few": (
        lambda root: [
            (root / "train" / c / f"00{i}.png").unlink() for c in CLASSES for i in (1, 2)
        ],
        "too few samples: 6 to train on",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_folder_is_refused(tmp_path: Path, model, spoil, message: str) -> None:
    write_classes(tmp_path / "train", 4)
    write_classes(tmp_path / "test", 2)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        open_data(str(tmp_path), model)
    assert "\n" not in str(caught.value)


def test_bad_files_read_when_needed_are_refused_too(tmp_path: Path, model, monkeypatch) -> None:
    monkeypatch.setattr(folder_module, "MEMORY_BYTES", 100)
    write_classes(tmp_path / "train", 4)
    write_classes(tmp_path / "test", 2)
    spoil_truncated(tmp_path)
    data = open_data(str(tmp_path), model)
    with pytest.raises(DataError, match=r"train/bee/001\.png"):
        data.train.arrays()
    (tmp_path / "train" / "bee" / "001.png").write_text("hello")
    with pytest.raises(DataError, match=r"train/bee/001\.png"):
        open_data(str(tmp_path), model)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.Input((48,)), keras.layers.Dense(3)], r"samples of shape \(48,\)"),
        (
            [
                keras.Input((None, None, 3)),
                keras.layers.GlobalMaxPooling2D(),
                keras.layers.Dense(3),
            ],
            "fixed",
        ),
        (
            [keras.Input((3, 8, 6)), keras.layers.Flatten(), keras.layers.Dense(3)],
            "channels first",
        ),
    ],
    ids=["vectors", "any size", "channels first"],
)
def test_a_model_that_takes_no_images_is_told_so(tmp_path: Path, layers, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(str(write_classes(tmp_path, 5)), keras.Sequential(layers))
