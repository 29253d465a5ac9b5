"""Every store keeps the same promises: a local directory, and S3 with authentication on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lrf_core.errors import StorageError
from lrf_core.storage import (
    DamagedObjectError,
    MissingObjectError,
    ObjectInfo,
    Store,
    open_store,
    sha256_of,
)
from lrf_core.storage.local import LocalStore


def local_store(request: pytest.FixtureRequest) -> Store:
    folder = request.getfixturevalue("tmp_path")
    return open_store((folder / "store with blank").as_uri())


def s3_store(request: pytest.FixtureRequest) -> Store:
    server = request.getfixturevalue("s3_settings")
    return open_store(f"s3://{server.bucket}/contract/{uuid.uuid4().hex}")


@pytest.fixture(params=[local_store, s3_store], ids=["local", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    make: Callable[[pytest.FixtureRequest], Store] = request.param
    return make(request)


# Writes one version after the other until it is killed.
WRITER = """
import sys, itertools, tempfile
from pathlib import Path
from lrf_core.storage.local import LocalStore
store, use = LocalStore(Path(sys.argv[1])), sys.argv[2]
for number in itertools.cycle((2, 1)):
    content = bytes([number]) * 300_000
    if use == "put":
        store.put("key", content)
    elif use == "replace":
        store.replace("key", content, store.read("key").tag)
    else:
        source = Path(sys.argv[1], ".writing-source")
        source.write_bytes(content)
        store.put_file("key", source)
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", b"one", bytes(range(256)) * 5000])
def test_content_comes_back_as_it_was_put(store: Store, content: bytes) -> None:
    store.put("a/b.bin", content)

    assert store.get("a/b.bin") == content
    assert store.stat("a/b.bin") == ObjectInfo(size=len(content), sha256=sha256(content))


@pytest.mark.parametrize("size", [0, 1000, 12 << 20], ids=["empty", "small", "multipart"])
def test_a_file_comes_back_as_it_was_put(store: Store, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    source.write_bytes(content)

    assert store.put_file("model.keras", source) == ObjectInfo(size, sha256(content))
    store.get_file("model.keras", target, sha256(content))

    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("key", ["plain", "with blank.txt", "a+b&c=d%20.txt", "größe/λ.json"])
def test_unusual_keys_are_kept_as_they_are(store: Store, key: str) -> None:
    store.put(key, b"here")

    assert store.get(key) == b"here"
    assert list(store.list()) == [key]


def test_put_takes_the_place_of_what_was_there(store: Store) -> None:
    store.put("key", b"a longer first version")
    store.put("key", b"second")

    assert store.get("key") == b"second"


def test_put_if_absent_leaves_what_is_there(store: Store) -> None:
    assert store.put_if_absent("a/manifest.json", b"first") is True
    assert store.put_if_absent("a/manifest.json", b"second") is False
    assert store.get("a/manifest.json") == b"first"
    assert store.stat("a/manifest.json") == ObjectInfo(5, sha256(b"first"))


def test_of_many_writers_at_once_exactly_one_wins(store: Store) -> None:
    writers = 8
    contents = [f"writer {writer}".encode() * 100 for writer in range(writers)]
    # SeaweedFS takes more than a second to settle a contested key.
    turns = 20 if isinstance(store, LocalStore) else 3
    for turn in range(turns):
        key, start = f"race/{turn}/manifest.json", threading.Barrier(writers)

        def write(content: bytes, key: str = key, start: threading.Barrier = start) -> bool:
            start.wait(timeout=30)
            return store.put_if_absent(key, content)

        with ThreadPoolExecutor(writers) as pool:
            won = list(pool.map(write, contents))

        assert won.count(True) == 1
        assert store.get(key) == contents[won.index(True)]


def test_writers_and_removers_at_once_do_not_disturb_each_other(store: Store) -> None:
    def write_and_remove(writer: int) -> None:
        for turn in range(20):
            store.check()
            store.put(f"shared/{writer}", f"{writer} {turn}".encode())
            assert store.get(f"shared/{writer}") == f"{writer} {turn}".encode()
            store.delete(f"shared/{writer}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_remove, range(4)))

    assert list(store.list()) == []


def test_a_file_that_is_not_stored_as_it_was_is_reported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"changed while it was sent")
    before = ObjectInfo(size=3, sha256=sha256(b"old"))
    measure = sha256_of
    monkeypatch.setattr(
        f"{type(store).__module__}.sha256_of",
        lambda path: before if path == source else measure(path),
    )
    with pytest.raises(DamagedObjectError, match="is not what"):
        store.put_file("key", source)


def test_list_gives_the_keys_below_a_prefix(store: Store) -> None:
    for key in ("net/v-1/a", "net/v-1/b/c", "net/v-10/a", "network/x", "other"):
        store.put(key, b"x")

    assert sorted(store.list()) == ["net/v-1/a", "net/v-1/b/c", "net/v-10/a", "network/x", "other"]
    assert sorted(store.list("net/v-1/")) == ["net/v-1/a", "net/v-1/b/c"]
    assert sorted(store.list("net/v-1")) == ["net/v-1/a", "net/v-1/b/c", "net/v-10/a"]
    assert sorted(store.list("net")) == ["net/v-1/a", "net/v-1/b/c", "net/v-10/a", "network/x"]
    assert list(store.list("nothing/here/")) == []


def test_entries_tell_contents_apart_without_reading_them(store: Store) -> None:
    for key, content in {"e/a": b"one", "e/b/c": b"", "f": b"four"}.items():
        store.put(key, content)
    before = {entry.key: entry for entry in store.entries("e/")}
    assert {key: entry.size for key, entry in before.items()} == {"e/a": 3, "e/b/c": 0}
    store.put("e/a", b"two")
    after = {entry.key: entry for entry in store.entries("e/")}
    assert after["e/a"].size == before["e/a"].size
    assert after["e/a"] != before["e/a"]
    assert after["e/b/c"] == before["e/b/c"]


def test_folders_gives_the_first_part_of_each_key_once(store: Store) -> None:
    assert list(store.folders()) == []
    for key in ("net/v-1/a", "net/v-1/b/c", "net/index.json", "network/x", "other"):
        store.put(key, b"x")

    assert sorted(store.folders()) == ["net", "network"]


def test_replace_writes_what_nobody_else_has_written_since(store: Store) -> None:
    assert store.read("index.json") is None
    assert store.replace("index.json", b"first", None) is True
    assert store.replace("index.json", b"another first", None) is False
    first = store.read("index.json")
    assert first is not None
    assert first.content == b"first"

    assert store.replace("index.json", b"second", first.tag) is True
    assert store.replace("index.json", b"too late", first.tag) is False
    assert store.get("index.json") == b"second"
    assert list(store.list()) == ["index.json"]

    store.delete("index.json")
    assert store.replace("index.json", b"gone", first.tag) is False
    assert store.replace("no/folder/index.json", b"gone", first.tag) is False
    assert list(store.list()) == []


def test_of_many_that_replace_at_once_none_is_lost(store: Store) -> None:
    def add(number: int) -> None:
        while True:
            stored = store.read("log")
            content = (stored.content if stored else b"") + f"{number},".encode()
            if store.replace("log", content, stored.tag if stored else None):
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))

    assert sorted(store.get("log").split(b",")[:-1], key=int) == [b"%d" % i for i in range(24)]


def test_copy_gives_the_same_object_under_another_key(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (12 << 12)
    (tmp_path / "large").write_bytes(content)
    store.put("small", b"s")
    store.put_file("blobs/large", tmp_path / "large")
    store.put("v-1/small", b"in place of this")
    store.copy("small", "v-1/small")
    store.copy("blobs/large", "v-1/model.keras")
    store.delete("blobs/large")

    assert store.get("v-1/small") == b"s"
    assert store.get("v-1/model.keras") == content
    assert store.stat("v-1/model.keras") == ObjectInfo(len(content), sha256(content))
    with pytest.raises(MissingObjectError, match="blobs/large"):
        store.copy("blobs/large", "v-1/again")


def test_delete_removes_one_object_and_may_be_repeated(store: Store) -> None:
    store.put("a/one", b"1")
    store.put("a/two", b"2")
    store.delete("a/one")
    store.delete("a/one")

    assert list(store.list()) == ["a/two"]
    assert store.stat("a/one") is None


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    store.put("folder/object", b"x")
    for key in ("nothing.json", "folder", "folder/object/below"):
        assert store.stat(key) is None
        with pytest.raises(MissingObjectError, match=key):
            store.get(key)
        with pytest.raises(MissingObjectError, match=key):
            store.get_file(key, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_file_with_another_digest_is_not_handed_out(store: Store, tmp_path: Path) -> None:
    store.put("model.keras", b"tampered")
    target = tmp_path / "out" / "model.keras"
    with pytest.raises(DamagedObjectError, match=r"model\.keras is damaged"):
        store.get_file("model.keras", target, sha256(b"original"))

    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("size", [1000, 12 << 20], ids=["small", "multipart"])
def test_a_file_that_is_not_what_it_must_be_is_not_stored(
    store: Store, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    with pytest.raises(DamagedObjectError, match="is not what it was, or should be"):
        store.put_file("model.keras", source, sha256(b"another"))
    assert list(store.list()) == []

    known = sha256(b"x" * size)
    assert store.put_file("model.keras", source, known) == ObjectInfo(size, known)
    assert store.stat("model.keras") == ObjectInfo(size, known)


def test_a_file_to_put_must_exist(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        store.put_file("key", tmp_path / "nothing")

    assert list(store.list()) == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "./a", "a\\b", "a\nb", "k" * 1025]
)
def test_keys_that_lead_elsewhere_are_refused(store: Store, key: str, tmp_path: Path) -> None:
    for use in (store.get, store.delete, store.stat, lambda key: store.put(key, b"x")):
        with pytest.raises(StorageError, match="object key"):
            use(key)
    with pytest.raises(StorageError, match="object key"):
        store.put_if_absent(key, b"x")
    with pytest.raises(StorageError, match="object key"):
        store.get_file(key, tmp_path / "target")


def test_check_accepts_a_usable_store_and_leaves_nothing(store: Store) -> None:
    store.check()

    assert list(store.list()) == []


def test_url_leads_back_to_the_store(store: Store) -> None:
    store.put("a/b", b"x")

    assert open_store(store.url("a")).get("b") == b"x"
    assert open_store(store.url()).get("a/b") == b"x"


def test_local_objects_are_plain_files(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("net/v-1/plan.json", b"{}")

    assert (tmp_path / "store/net/v-1/plan.json").read_bytes() == b"{}"
    assert (tmp_path / "store/net/v-1/plan.json").stat().st_mode & 0o777 == 0o644
    store.delete("net/v-1/plan.json")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_local_file_that_is_still_being_written_is_no_object(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / ".writing-x1").write_bytes(b"half")

    assert list(store.list()) == []
    with pytest.raises(StorageError, match=r"\.writing-"):
        store.get(".writing-x1")


def test_folders_of_replaced_objects_can_be_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put("net/index.json", b"1")
    stored = store.read("net/index.json")
    assert stored is not None
    assert store.replace("net/index.json", b"2", stored.tag)
    store.delete("net/index.json")

    assert not (tmp_path / "store" / "net").exists()
    assert list(store.list()) == []


@pytest.mark.parametrize("use", ["put", "replace", "put_file"])
def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path, use: str) -> None:
    store = open_store(str(tmp_path))
    versions = [bytes([number]) * 300_000 for number in (1, 2)]
    store.put("key", versions[0])
    for turn in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), use])
        time.sleep(0.6 + 0.05 * turn)
        writer.kill()
        writer.wait()
        stored = store.read("key")
        assert stored is not None
        assert stored.content in versions
        # Nobody waits for a lock of the dead.
        assert store.replace("key", versions[0], stored.tag)
    assert list(store.list()) == ["key"]


def test_check_does_not_leave_a_local_directory_behind(tmp_path: Path) -> None:
    open_store(str(tmp_path / "new" / "store")).check()

    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_local_store_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder" / "key").mkdir(parents=True)
    below_file = open_store(str(tmp_path / "file" / "store"))
    itself_file = open_store(str(tmp_path / "file"))
    folder_in_place = open_store(str(tmp_path / "folder"))
    for failing in (
        below_file.check,
        itself_file.check,
        lambda: below_file.put("key", b"x"),
        lambda: itself_file.put_if_absent("key", b"x"),
        lambda: folder_in_place.put("key", b"x"),
        lambda: folder_in_place.put_if_absent("key", b"x"),
    ):
        with pytest.raises(StorageError, match=r"cannot write .*check that") as caught:
            failing()
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "names no directory"),
        ("file://", "names no directory"),
        ("file://host/dir", "names a host"),
        ("gs://bucket/prefix", "unknown kind"),
        ("s3://bucket/prefix?region=x", "query"),
        ("s3://bucket/../other", "object key"),
        ("s3:///prefix", "bucket"),
        ("s3://Not_A_Bucket", "bucket"),
        ("s3://key:secret-in-uri@bucket/prefix", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_addresses_that_name_no_store_are_refused(
    uri: str, message: str, no_s3_settings: None
) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        open_store(uri)
    assert "secret-in-uri" not in str(caught.value)
