"""Whatever breaks between the store and its server: the right result, or one clear line."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_proxy import Fault, FaultyProxy
from seaweed import SECRET_KEY, Seaweed, SeaweedProcess

from lrf_core.errors import StorageError
from lrf_core.storage import DamagedObjectError, ObjectInfo, Store, open_store, retry, transfer

# Faults that a second attempt gets over. The others are no faults to a client, or never end.
PASSING = tuple(fault for fault in Fault if fault is not Fault.DELAY)
ON_WRITES = tuple(
    fault for fault in PASSING if fault is not Fault.FLIPPED_BIT
)  # no body comes back
CONTENT = bytes(range(256)) * 1200
WRITES = ("put", "put_file", "multipart", "put_if_absent", "replace", "copy")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and parts a hundredth as large."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_WAIT_S", 0.04)
    for name in ("PART_BYTES", "RECEIVED_BYTES"):
        monkeypatch.setattr(transfer, name, 5 << 20)


@pytest.fixture
def sound(s3_settings: Seaweed) -> Store:
    """The same place as `store`, with nothing in between."""
    return open_store(f"s3://{s3_settings.bucket}/faults/{uuid.uuid4().hex}")


@pytest.fixture
def store(sound: Store, faulty_proxy: FaultyProxy) -> Store:
    return open_store(sound.url())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two whole parts and a half one."""
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(random.Random(0).randbytes(12 << 20))
    return path


def write(store: Store, sound: Store, kind: str, folder: Path, large: Path) -> bytes:
    """Write `key` in one way; returns what must be there."""
    if kind == "put":
        store.put("key", CONTENT)
    elif kind == "put_file":
        (folder / "small").write_bytes(CONTENT)
        store.put_file("key", folder / "small")
    elif kind == "multipart":
        store.put_file("key", large)
        return large.read_bytes()
    elif kind == "put_if_absent":
        assert store.put_if_absent("key", CONTENT) is True
    elif kind == "replace":
        sound.put("key", b"before")
        stored = sound.read("key")
        assert stored is not None
        assert store.replace("key", CONTENT, stored.tag) is True
    else:
        sound.put("source", CONTENT)
        store.copy("source", "key")
    return CONTENT


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("fault", ON_WRITES, ids=lambda fault: fault.name)
def test_a_write_gets_over_a_fault(
    store: Store,
    sound: Store,
    faulty_proxy: FaultyProxy,
    large: Path,
    tmp_path: Path,
    kind: str,
    fault: Fault,
) -> None:
    # Then what is tried again passes: an attempt is two requests at most.
    turns = itertools.cycle((fault, None, None))
    faulty_proxy.choose(lambda request: next(turns))

    written = write(store, sound, kind, tmp_path, large)

    assert sound.get("key") == written
    assert sound.stat("key") == ObjectInfo(len(written), hashlib.sha256(written).hexdigest())
    assert faulty_proxy.requests[0].fault is fault


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_a_read_gets_over_a_fault(
    store: Store, sound: Store, faulty_proxy: FaultyProxy, large: Path, tmp_path: Path, fault: Fault
) -> None:
    sound.put("key", CONTENT)
    sound.put_file("large", large)
    for read in (
        lambda: store.get("key") == CONTENT,
        lambda: store.read("key") == sound.read("key"),
        lambda: store.stat("key") == sound.stat("key"),
        lambda: list(store.list()) == list(sound.list()),
    ):
        faulty_proxy.next(fault)
        assert read()
    for number in range(3):  # the first part, and two of the others
        faulty_proxy.next(*[None] * number, fault)
        store.get_file("large", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_delete_and_check_get_over_faults(
    store: Store, sound: Store, faulty_proxy: FaultyProxy
) -> None:
    sound.put("key", CONTENT)
    for fault in (Fault.RESET, Fault.LOST_ANSWER, Fault.SLOW_DOWN, Fault.LATE_ERROR):
        faulty_proxy.next(fault)
        store.check()
        faulty_proxy.next(fault)
        store.delete("key")
        assert sound.stat("key") is None


def test_a_burst_of_errors_is_waited_for(
    store: Store, faulty_proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lrf")
    faulty_proxy.next(*[Fault.SLOW_DOWN, Fault.SERVER_ERROR, Fault.RESET] * 3)

    store.put("key", CONTENT)

    assert store.get("key") == CONTENT
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 9  # one line for each attempt that follows
    assert "the server says SlowDown; try 2 follows in" in said[0]
    assert SECRET_KEY not in caplog.text


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SLOW_DOWN])
def test_a_fault_that_does_not_end_is_one_clear_line(
    sound: Store,
    faulty_proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    large: Path,
    fault: Fault,
) -> None:
    sound.put("key", CONTENT)
    sound.put_file("large", large)
    monkeypatch.setenv("LRF_S3_RETRY_S", "0.1")
    store = open_store(sound.url())
    faulty_proxy.choose(lambda request: fault)
    for use in (
        lambda: store.get("key"),
        lambda: store.get_file("large", tmp_path / "back"),
        lambda: store.put_file("new", large),
        lambda: store.replace("key", b"x", "tag"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StorageError) as caught:
            use()
        assert "\n" not in str(caught.value)
        assert faulty_proxy.endpoint in str(caught.value)
    assert not (tmp_path / "back").exists()
    assert not list(tmp_path.glob(".writing-*"))


def test_bits_that_change_on_every_way_are_never_handed_out(
    store: Store, sound: Store, faulty_proxy: FaultyProxy, large: Path, tmp_path: Path
) -> None:
    sound.put("key", CONTENT)
    sound.put_file("large", large)
    faulty_proxy.choose(lambda request: Fault.FLIPPED_BIT if request.method == "GET" else None)
    with pytest.raises(DamagedObjectError, match="key is damaged"):
        store.get("key")
    with pytest.raises(DamagedObjectError, match="large is damaged"):
        store.get_file("large", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_fails_leaves_nothing_half_written(
    sound: Store,
    seaweed: Seaweed,
    faulty_proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    large: Path,
) -> None:
    monkeypatch.setenv("LRF_S3_RETRY_S", "0.1")
    store = open_store(sound.url())
    faulty_proxy.choose(
        lambda request: Fault.SERVER_ERROR if "partNumber=2" in request.path else None
    )
    with pytest.raises(StorageError, match="InternalError"):
        store.put_file("key", large)

    assert list(sound.list()) == []
    uploads = seaweed.client()._list_multipart_uploads(seaweed.bucket).uploads
    own = sound.url().rpartition("/")[2]
    assert [upload.object_name for upload in uploads if own in upload.object_name] == []


def test_an_object_that_is_written_while_it_is_read_comes_whole(
    store: Store, sound: Store, faulty_proxy: FaultyProxy, large: Path, tmp_path: Path
) -> None:
    (tmp_path / "new").write_bytes(large.read_bytes()[::-1])
    sound.put_file("key", large)
    written = threading.Event()

    def write_after_first_part(request: object) -> None:
        gets = [known for known in faulty_proxy.requests if known.method == "GET"]
        if len(gets) == 1 and not written.is_set():
            written.set()
            sound.put_file("key", tmp_path / "new")

    faulty_proxy.choose(write_after_first_part)
    store.get_file("key", tmp_path / "back")

    assert written.is_set()
    assert (tmp_path / "back").read_bytes() == (tmp_path / "new").read_bytes()


def test_a_lost_answer_is_not_taken_for_the_answer_to_another(
    store: Store, sound: Store, faulty_proxy: FaultyProxy
) -> None:
    """A -> B arrives, its answer is lost; somebody puts A back; B must not be written again."""
    sound.replace("key", b"A", None)
    first = sound.read("key")
    assert first is not None

    def answer_lost(request: object) -> Fault | None:
        if not [known for known in faulty_proxy.requests if known.method == "PUT"]:
            return Fault.LOST_ANSWER
        if faulty_proxy.requests[-1].fault is Fault.LOST_ANSWER:
            written = sound.read("key")
            assert written is not None
            assert sound.replace("key", b"A", written.tag)
        return None

    faulty_proxy.choose(answer_lost)

    assert store.replace("key", b"B", first.tag) is False
    assert sound.get("key") == b"A"


@pytest.mark.parametrize("seed", range(3))
def test_of_writers_with_faults_exactly_one_wins(
    store: Store, sound: Store, faulty_proxy: FaultyProxy, seed: int
) -> None:
    faulty_proxy.at_random(0.3, seed, Fault.LOST_ANSWER, Fault.LATE_ERROR, Fault.RESET)
    contents = [b"writer %d" % number for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda content: store.put_if_absent("race", content), contents))

    assert won.count(True) == 1
    assert sound.get("race") == contents[won.index(True)]


def test_with_faults_no_replacement_is_lost_or_done_twice(
    store: Store, sound: Store, faulty_proxy: FaultyProxy
) -> None:
    def add(number: int) -> None:
        while True:
            stored = store.read("log")
            content = stored.content if stored else b""
            if b"%d" % number in content.split(b","):
                return
            if store.replace("log", content + b"%d," % number, stored.tag if stored else None):
                return

    faulty_proxy.at_random(0.3, 0, *(set(PASSING) - {Fault.FLIPPED_BIT}))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))

    assert sorted(sound.get("log").split(b",")[:-1], key=int) == [b"%d" % i for i in range(12)]


def test_a_server_that_starts_again_meanwhile_is_waited_for(
    own_seaweed: SeaweedProcess,
    no_s3_settings: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in own_seaweed.server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retry, "_LONGEST_WAIT_S", 1.0)
    store = open_store("s3://releases/restart")
    contents = {f"{number}": os.urandom(200_000) for number in range(40)}
    failed: list[BaseException] = []

    def write_all() -> None:
        try:
            for key, content in contents.items():
                assert store.put_if_absent(key, content)
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    writing = threading.Thread(target=write_all)
    writing.start()
    while "5" not in set(store.list()) and writing.is_alive():
        pass
    own_seaweed.kill()
    own_seaweed.start()
    writing.join()

    assert failed == []
    assert {key: store.get(key) for key in store.list()} == contents
