"""Models and data in S3 are what they are as files, fetched once, and called by their URI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from PIL import Image
from seaweed import Seaweed
from tiny import Trained, tiny_cnn

from lrf_core.data import open_data
from lrf_core.errors import DataError, ModelError, StorageError
from lrf_core.models.compiled import compiled_of
from lrf_core.models.load import load_model, model_digest
from lrf_core.storage import Store, open_store
from lrf_core.storage.cache import cache_folder
from lrf_core.storage.inputs import is_absent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bucket(s3_settings: Seaweed, tmp_path: Path) -> Store:
    """A store of its own for each test."""
    return open_store(f"s3://{s3_settings.bucket}/inputs/{tmp_path.name}")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for label, name in enumerate("ab"):
        (folder / name).mkdir()
        for number in range(8):
            pixels = np.full((4, 4, 3), 40 * label + number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def put_folder(store: Store, prefix: str, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_model_and_its_data_come_from_a_bucket(
    bucket: Store, trained: Trained, scheme: str
) -> None:
    bucket.put_file("in/tiny.keras", trained.model_file)
    bucket.put_file("in/tiny.npz", trained.data_file)
    address = bucket.url("in").replace("s3:", f"{scheme}:")

    model = load_model(f"{address}/tiny.keras")
    data = open_data(f"{address}/tiny.npz", model)
    known = open_data(str(trained.data_file), model)

    assert model_digest(model) == model_digest(trained.model)
    assert data.digest == known.digest
    assert data.source == f"{address}/tiny.npz"
    assert compiled_of(model) == compiled_of(load_model(trained.model_file))


def test_a_prefix_may_hold_the_model(bucket: Store, trained: Trained) -> None:
    bucket.put_file("net/v-1/model.keras", trained.model_file)

    for address in (bucket.url("net/v-1"), bucket.url("net/v-1") + "/"):
        assert model_digest(load_model(address)) == model_digest(trained.model)


def test_a_config_and_its_weights_come_from_a_bucket(
    bucket: Store, trained: Trained, tmp_path: Path
) -> None:
    trained.model.save_weights(tmp_path / "tiny.weights.h5")
    bucket.put("tiny.json", trained.model.to_json().encode())
    bucket.put_file("tiny.weights.h5", tmp_path / "tiny.weights.h5")

    model = load_model(bucket.url("tiny.json"), bucket.url("tiny.weights.h5"))
    assert model_digest(model) == model_digest(trained.model)


def test_a_prefix_of_class_folders_is_what_the_folder_is(bucket: Store, images: Path) -> None:
    put_folder(bucket, "images", images)
    model = tiny_cnn((4, 4, 3), classes=2)

    remote, local = open_data(bucket.url("images"), model), open_data(str(images), model)
    assert remote.digest == local.digest
    assert remote.class_names == local.class_names
    assert remote.source == bucket.url("images")
    np.testing.assert_array_equal(remote.train.arrays()[0], local.train.arrays()[0])


def test_what_was_fetched_is_not_fetched_again(
    bucket: Store, trained: Trained, images: Path, faulty_proxy: FaultyProxy, seaweed: Seaweed
) -> None:
    bucket.put_file("tiny.keras", trained.model_file)
    seaweed.client().fput_object(  # as another program does, without a digest
        seaweed.bucket, f"{bucket.url()[len('s3://releases/') :]}/other.keras", trained.model_file
    )
    put_folder(bucket, "images", images)
    model = tiny_cnn((4, 4, 3), classes=2)

    def fetched() -> int:
        before = len(faulty_proxy.requests)
        load_model(bucket.url("tiny.keras"))
        load_model(bucket.url("other.keras"))
        open_data(bucket.url("images"), model)
        new = faulty_proxy.requests[before:]
        return sum(one.method == "GET" and "list-type" not in one.path for one in new)

    assert fetched() == 18  # the same content under two names is two files
    assert fetched() == 0
    bucket.put_file("images/a/0.png", images / "b" / "0.png")
    assert fetched() > 0


def test_a_damaged_cache_is_fetched_again(bucket: Store, trained: Trained, images: Path) -> None:
    bucket.put_file("tiny.keras", trained.model_file)
    put_folder(bucket, "images", images)
    model = tiny_cnn((4, 4, 3), classes=2)
    digest = open_data(bucket.url("images"), model).digest
    load_model(bucket.url("tiny.keras"))
    for path in [path for path in cache_folder().rglob("*") if path.is_file()]:
        if path.suffix in (".keras", ".png"):
            path.write_bytes(path.read_bytes()[:-1])

    assert model_digest(load_model(bucket.url("tiny.keras"))) == model_digest(trained.model)
    assert open_data(bucket.url("images"), model).digest == digest


def test_errors_name_the_uri(bucket: Store, trained: Trained, images: Path) -> None:
    bucket.put("bad.keras", b"no model")
    bucket.put("bad.npz", b"no arrays")
    bucket.put("notes.txt", b"no data")
    put_folder(bucket, "images", images)
    bucket.put("images/a/broken.png", b"no image")
    for use, message, kind in (
        (lambda: load_model(bucket.url("bad.keras")), "bad.keras is no Keras model", ModelError),
        (lambda: load_model(bucket.url("gone.keras")), "no model at s3://", ModelError),
        (lambda: open_data(bucket.url("bad.npz"), trained.model), "as an .npz file", DataError),
        (lambda: open_data(bucket.url("notes.txt"), trained.model), "kind of data", DataError),
        (lambda: open_data(bucket.url("gone"), trained.model), "no data at s3://", DataError),
        (lambda: load_model("s3:///key"), "names no bucket", StorageError),
        (
            lambda: open_data(bucket.url("images"), tiny_cnn((4, 4, 3), classes=2)),
            "images/a/broken.png",
            DataError,
        ),
    ):
        with pytest.raises(kind) as caught:
            use()
        assert message in str(caught.value)
        assert "s3://" in str(caught.value)
        assert str(cache_folder()) not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(
    bucket: Store, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_file("tiny.keras", trained.model_file)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRF_CACHE", str(tmp_path / "file"))

    with pytest.raises(StorageError, match=r"cannot write the cache .* LRF_CACHE"):
        load_model(bucket.url("tiny.keras"))


FETCH = """
import sys
from lrf_core.storage.inputs import file_at, folder_at
for _ in range(3):
    print(file_at(sys.argv[1] + "/tiny.keras"), folder_at(sys.argv[1] + "/images"))
"""


def test_processes_may_share_a_cache(bucket: Store, trained: Trained, images: Path) -> None:
    bucket.put_file("tiny.keras", trained.model_file)
    put_folder(bucket, "images", images)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, bucket.url()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = {line for process in running for line in process.communicate(timeout=60)[0].split("\n")}

    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said - {""}) == 1
    assert not list(cache_folder().rglob(".writing-*"))


@pytest.mark.slow
def test_a_command_takes_uris(bucket: Store, trained: Trained, tmp_path: Path) -> None:
    bucket.put_file("tiny.keras", trained.model_file)
    bucket.put_file("tiny.npz", trained.data_file)
    command = ["analyze", bucket.url("tiny.keras"), "--data", bucket.url("tiny.npz"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "lrf_core", *command, "--out", str(tmp_path / "out")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["layers"]


def test_what_is_absent_is_seen_without_asking_anybody(tmp_path: Path) -> None:
    file = tmp_path / "a model.keras"
    file.write_bytes(b"x")
    assert not is_absent(str(file))
    assert not is_absent(file.as_uri())
    assert not is_absent("s3://no-such-bucket/model.keras")
    for source in (f"{file}.gone", f"{file.as_uri()}.gone", ""):
        assert is_absent(source)
