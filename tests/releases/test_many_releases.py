"""With many releases of a name, each is listed, verified, and no garbage."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from proposals import SUMMARY, Content
from seaweed import Seaweed

from lrf_core.artifacts.seal import sealed_json
from lrf_core.console.progress import shown_by
from lrf_core.errors import ArtifactError, StorageError
from lrf_core.releases import (
    list_releases,
    read_index,
    release_names,
    resolve,
    set_alias,
    verify_version,
    verify_versions,
)
from lrf_core.releases.collect import find_garbage
from lrf_core.releases.index import ReleaseIndex
from lrf_core.releases.parallel import WORKERS, in_parallel
from lrf_core.storage import Store, open_store
from lrf_core.storage.local import LocalStore

NOW = timedelta(0)
FEW = 12


def write(store: Store, folder: Path, count: int) -> list[str]:
    """Versions in the order they were written."""
    return [
        Content(folder, b"model %d" % number).write(store).release.version
        for number in range(count)
    ]


def check(store: Store, versions: list[str]) -> None:
    """All are listed and sound, and nothing is garbage; then one file of one of them is damaged."""
    count = len(versions)
    listed = list_releases(store, "tiny")
    assert [line.version for line in listed] == versions
    assert [line.number for line in listed] == list(range(1, count + 1))
    assert [line.aliases for line in listed] == [()] * (count - 1) + [("latest",)]
    assert {line.listing.summary for line in listed} == {SUMMARY}
    assert release_names(store) == ["tiny"]
    assert find_garbage(store, NOW).keys == ()
    assert verify_versions(store, "tiny") == {number: [] for number in range(1, count + 1)}
    bad = count // 2
    store.put(f"tiny/{versions[bad - 1]}/model.keras", b"spoiled")
    found = verify_versions(store, "tiny")
    assert list(found) == list(range(1, count + 1))
    assert {number: paths for number, paths in found.items() if paths} == {bad: ["model.keras"]}


def test_a_dozen_releases_are_listed_and_verified(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    check(store, write(store, tmp_path, FEW))


def test_a_dozen_releases_on_a_server(s3_settings: Seaweed, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3_settings.bucket}/dozen")
    check(store, write(store, tmp_path, FEW))


@pytest.mark.slow
def test_500_releases_on_a_server(s3_settings: Seaweed, tmp_path: Path) -> None:
    store = open_store(f"s3://{s3_settings.bucket}/many")
    check(store, write(store, tmp_path, 500))


class Reading:
    """A store that notes what is read of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)

        def noted(*arguments: Any) -> Any:
            if name != "url":
                self.keys.append(str(arguments[0]) if arguments else "")
            return operation(*arguments)

        return noted


def test_a_list_is_one_request(tmp_path: Path) -> None:
    store = Reading(LocalStore(tmp_path / "store"))
    write(store.store, tmp_path, FEW)
    assert len(list_releases(store, "tiny")) == FEW  # type: ignore[arg-type]
    assert store.keys == ["tiny/index.json"]


def test_shared_blobs_are_verified_once(tmp_path: Path) -> None:
    store = Reading(LocalStore(tmp_path / "store"))
    write(store.store, tmp_path, FEW)
    assert not any(verify_versions(store, "tiny").values())  # type: ignore[arg-type]
    blobs = [key for key in store.keys if key.startswith("blobs/")]
    # The report is the same in all; of each release two files and the manifest are not.
    assert len(blobs) == len(set(blobs)) == 3 * FEW + 1
    assert store.keys.count("tiny/index.json") == 1


def as_version_1(index: ReleaseIndex) -> bytes:
    """An index as it was written before it listed releases."""
    entries = tuple(entry.model_copy(update={"listing": None}) for entry in index.versions)
    return sealed_json(index.model_copy(update={"schema_version": 1, "versions": entries}))


def test_an_index_of_version_1_is_read_and_goes_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    versions = write(store, tmp_path, 3)
    index = read_index(store, "tiny")
    assert index is not None
    content = as_version_1(index)
    assert b"listing" not in content
    store.put("tiny/index.json", content)
    assert [line.listing.summary for line in list_releases(store, "tiny")] == [SUMMARY] * 3
    assert verify_versions(store, "tiny") == {1: [], 2: [], 3: []}
    set_alias(store, "tiny", "champion", 2)
    Content(tmp_path, b"one more").write(store)
    assert [line.version for line in list_releases(store, "tiny")][:3] == versions
    assert resolve(store, "tiny", "champion").release.version == versions[1]
    assert verify_version(store, "tiny", 4) == []


def test_an_index_that_lists_something_else_than_the_manifest_is_found(tmp_path: Path) -> None:
    """Sealed again: anyone can, who may write to the store."""
    store = LocalStore(tmp_path / "store")
    write(store, tmp_path, 2)
    index = read_index(store, "tiny")
    assert index is not None
    first, second = index.versions
    assert first.listing is not None
    better = SUMMARY.model_copy(update={"accuracy_after": 99.9})
    listing = first.listing.model_copy(update={"summary": better})
    forged = (first.model_copy(update={"listing": listing}), second)
    store.put("tiny/index.json", sealed_json(index.model_copy(update={"versions": forged})))
    assert verify_versions(store, "tiny") == {1: ["index.json"], 2: []}


def test_a_manifest_that_was_changed_is_not_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (version,) = write(store, tmp_path, 1)
    key = f"tiny/{version}/manifest.json"
    manifest = json.loads(store.get(key))
    manifest["files"][0]["sha256"] = hashlib.sha256(b"planted").hexdigest()
    store.put(key, json.dumps(manifest).encode())
    store.put(f"tiny/{version}/{manifest['files'][0]['path']}", b"planted")
    with pytest.raises(ArtifactError, match=r"manifest\.json is missing or damaged"):
        resolve(store, "tiny", "latest")
    found = verify_version(store, "tiny", 1)
    assert {"manifest.json", manifest["files"][0]["path"]} <= set(found)


def test_champions_that_are_named_at_once_all_count(tmp_path: Path) -> None:
    """Whoever is last is champion, and whoever was champion just before is the previous one."""
    store = LocalStore(tmp_path / "store")
    write(store, tmp_path, 8)
    barrier, named = threading.Barrier(8), []

    def name(number: int) -> None:
        barrier.wait()
        set_alias(store, "tiny", "champion", number)
        named.append(number)

    threads = [threading.Thread(target=name, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = read_index(store, "tiny")
    assert index is not None
    assert sorted(named) == list(range(1, 9))
    assert index.aliases["champion"] != index.aliases["previous"]
    assert index.aliases["latest"] == 8


def test_results_keep_their_order_and_progress_is_reported() -> None:
    steps: list[int] = []

    class Shown:
        def __init__(self, description: str, total: int) -> None:
            assert (description, total) == ("Doubling", 50)

        def __enter__(self) -> Any:
            return steps.append

        def __exit__(self, *raised: object) -> None:
            pass

    at_once, most, lock = 0, 0, threading.Lock()

    def doubled(number: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.001 * (number % 5))
        with lock:
            at_once -= 1
        return 2 * number

    with shown_by(Shown):
        assert in_parallel(doubled, range(50), "Doubling") == [2 * n for n in range(50)]
    assert steps == [1] * 50
    assert 1 < most <= WORKERS


def test_the_first_error_ends_the_work() -> None:
    begun: list[int] = []

    def fail(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise StorageError("number 3 is gone")
        time.sleep(0.01)

    with pytest.raises(StorageError, match="number 3 is gone"):
        in_parallel(fail, range(500), "Failing")
    assert len(begun) < 500


def test_a_list_starts_without_tensorflow(tmp_path: Path) -> None:
    write(LocalStore(tmp_path / "store"), tmp_path, 1)
    program = (
        "import sys\n"
        "from lrf_core.commands.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'tensorflow', 'keras', 'jax', 'kfp'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", program, "releases", "list", "--from"]
    done = subprocess.run(
        [*command, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Releases of tiny" in done.stdout
