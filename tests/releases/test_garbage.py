"""Garbage is what killed publishers left, once it is old; a release never is."""

from __future__ import annotations

import dataclasses
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from proposals import Content, Counting, Killed

from lrf_core.errors import ArtifactError
from lrf_core.releases import verify_version
from lrf_core.releases.collect import collect_garbage, find_garbage
from lrf_core.storage.base import ObjectInfo
from lrf_core.storage.local import LocalStore

HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """With one release, and what the publishers of two more left when they died."""
    store = LocalStore(tmp_path / "store")
    Content(tmp_path, b"released").write(store)

    def die(left: str) -> Counting:
        def told(number: int) -> None:
            if any(key.startswith("tiny/") and left in key for key in dying.list("tiny/")):
                raise Killed

        dying = store
        return Counting(store, told)

    with pytest.raises(Killed):
        Content(tmp_path, b"copied").write(die(f"{Content(tmp_path, b'copied').version}/model"))
    unsaid = Content(tmp_path, b"uploaded")
    with pytest.raises(Killed):
        unsaid.write(die(f"{unsaid.version}/intent"))
    store.delete(f"tiny/{unsaid.version}/intent.json")
    return store


def age(store: LocalStore, hours: float, below: str = "") -> None:
    """Make files as old as if they had been written hours ago."""
    then = time.time() - 3600 * hours
    for key in store.list(below):
        os.utime(store.root / key, (then, then))


def test_nothing_young_is_garbage(store: LocalStore) -> None:
    before = set(store.list())
    assert find_garbage(store).keys == ()
    assert collect_garbage(store).keys == ()
    assert set(store.list()) == before


def test_old_leftovers_are_garbage_and_releases_are_not(store: LocalStore, tmp_path: Path) -> None:
    age(store, 25)
    found = find_garbage(store)
    copied = Content(tmp_path, b"copied").version
    assert {key.split("/")[1] for key in found.keys if key.startswith("tiny/")} == {copied}
    assert found.size == sum((store.root / key).stat().st_size for key in found.keys)
    assert collect_garbage(store) == found

    assert verify_version(store, "tiny", 1) == []
    released = Content(tmp_path, b"released")
    left = set(store.list("tiny/"))
    assert all(released.version in key or key == "tiny/index.json" for key in left)
    assert len(list(store.list("blobs/"))) == 4  # three files and the manifest
    assert find_garbage(store).keys == ()


class SlowClock(LocalStore):
    """A store whose clock is two days behind that of this machine."""

    def stat(self, key: str) -> ObjectInfo | None:
        found = super().stat(key)
        if found is None or found.modified is None:
            return found
        return dataclasses.replace(found, modified=found.modified - timedelta(days=2))


def test_a_clock_that_is_ahead_makes_nothing_garbage(store: LocalStore) -> None:
    behind = SlowClock(store.root)
    before = set(store.list())
    assert find_garbage(behind).keys  # by the clock of this machine
    assert collect_garbage(behind).keys == ()
    assert set(store.list()) == before
    age(store, 25)
    assert collect_garbage(behind).keys
    assert not list(store.list("clock-"))


def test_a_clock_that_is_behind_makes_nothing_garbage(store: LocalStore) -> None:
    age(store, -48)
    assert collect_garbage(store).keys == ()


def test_what_somebody_is_at_is_kept_with_its_old_blobs(store: LocalStore, tmp_path: Path) -> None:
    age(store, 25)
    content = Content(tmp_path, b"copied")
    age(store, 0.1, f"tiny/{content.version}/")
    collect_garbage(store)

    written = content.write(store)
    assert written.number == 2
    assert verify_version(store, "tiny", 2) == []


def test_what_was_collected_can_be_published_again(store: LocalStore, tmp_path: Path) -> None:
    age(store, 25)
    collect_garbage(store)
    for number, model in enumerate((b"copied", b"uploaded"), 2):
        assert Content(tmp_path, model).write(store).number == number
        assert verify_version(store, "tiny", number) == []


def test_an_old_blob_that_is_published_again_is_young(store: LocalStore, tmp_path: Path) -> None:
    age(store, 25)
    Content(tmp_path, b"uploaded").write(store)
    garbage = find_garbage(store, HOUR)
    collect_garbage(store, HOUR)

    assert garbage.keys
    assert verify_version(store, "tiny", 1) == verify_version(store, "tiny", 2) == []


def test_other_things_in_the_store_are_not_touched(store: LocalStore, tmp_path: Path) -> None:
    others = ["cache/abc.json", "blobs/readme", "tiny/notes.txt", "data/v-1/x", "top"]
    for key in others:
        store.put(key, b"not ours")
    age(store, 1000)
    collect_garbage(store)

    assert set(others) < set(store.list())


def test_a_file_planted_in_a_release_is_garbage_once_it_is_old(store: LocalStore) -> None:
    [manifest] = [key for key in store.list("tiny/") if key.endswith("manifest.json")]
    planted = manifest.replace("manifest.json", "saved_model/2/saved_model.pb")
    store.put(planted, b"another model")
    age(store, 25)

    assert planted in collect_garbage(store).keys
    assert verify_version(store, "tiny", 1) == []


def test_without_knowing_what_a_manifest_names_nothing_is_removed(store: LocalStore) -> None:
    age(store, 25)
    [manifest] = [key for key in store.list("tiny/") if key.endswith("manifest.json")]
    sound = store.get(manifest)
    store.put(manifest, sound[:-1])
    collect_garbage(store)  # the manifest is also kept as a blob
    for key in list(store.list("blobs/")):
        store.put(key, b"damaged")
    with pytest.raises(ArtifactError, match="nobody knows which blobs it names"):
        collect_garbage(store)
