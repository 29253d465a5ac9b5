"""Any flipped bit is found: by verifying, and by loading what it is in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposals import Content

from lrf_core.errors import ArtifactError, StorageError
from lrf_core.releases import (
    fetch_release,
    read_index,
    resolve,
    verify_release,
    verify_version,
)
from lrf_core.storage.local import LocalStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    folder = tmp_path_factory.mktemp("verified")
    store = LocalStore(folder / "store")
    Content(folder / "files").write(store)
    return store


@given(data=st.data())
@settings(max_examples=150)
def test_any_flipped_bit_in_any_file_is_found(store: LocalStore, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(store.list())))
    path = store.root / key
    sound = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(sound) - 1))
    damaged = bytearray(sound)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        if key == "tiny/index.json":
            for read in (
                lambda: read_index(store, "tiny"),
                lambda: verify_version(store, "tiny", 1),
            ):
                with pytest.raises(ArtifactError, match=r"index\.json"):
                    read()
        else:
            below = key if key.startswith("blobs/") else key.split("/", 2)[2]
            assert verify_version(store, "tiny", 1) == [below]
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("path", ["model.keras", "saved_model/1/saved_model.pb", "manifest.json"])
def test_a_damaged_file_is_not_loaded(store: LocalStore, tmp_path: Path, path: str) -> None:
    version = resolve(store, "tiny", 1).release.version
    file = store.root / "tiny" / version / path
    sound = file.read_bytes()
    file.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    try:
        with pytest.raises(ArtifactError, match=path.rpartition("/")[2]):
            fetch_release(store, resolve(store, "tiny", "latest").release, tmp_path)
    finally:
        file.write_bytes(sound)
    fetch_release(store, resolve(store, "tiny", "latest").release, tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == b"a model"


def test_a_file_that_is_not_of_the_release_is_found(store: LocalStore) -> None:
    """A model server takes the highest number that it finds below `saved_model`."""
    release = resolve(store, "tiny", 1).release
    planted = f"tiny/{release.version}/saved_model/2/saved_model.pb"
    store.put(planted, b"another model")
    try:
        assert verify_release(store, release) == ["saved_model/2/saved_model.pb"]
    finally:
        store.delete(planted)
    assert verify_release(store, release) == []


def test_a_manifest_of_another_release_is_not_taken(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    old, new = Content(tmp_path, b"old"), Content(tmp_path, b"new")
    old.write(store)
    new.write(store)
    store.copy(f"tiny/{old.version}/manifest.json", f"tiny/{new.version}/manifest.json")

    assert verify_version(store, "tiny", 2) == ["manifest.json"]
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing or damaged"):
        resolve(store, "tiny", "latest")


def test_a_path_that_leads_out_of_the_folder_is_refused(store: LocalStore, tmp_path: Path) -> None:
    release = resolve(store, "tiny", 1).release
    outside = store.root / "tiny" / "outside"
    outside.write_bytes(b"x")
    for path in ("../outside", str(outside), "a/../../outside"):
        entry = release.files[0].model_copy(
            update={"path": path, "sha256": hashlib.sha256(b"x").hexdigest()}
        )
        with pytest.raises(StorageError, match="is not usable"):
            fetch_release(store, release.model_copy(update={"files": (entry,)}), tmp_path / "to")
    outside.unlink()
    assert not (tmp_path / "outside").exists()
