"""The object store dies (SIGKILL) at random moments: no release is lost, halved or doubled."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from faulty_proxy import Fault, FaultyProxy
from proposals import Content, Counting
from seaweed import BUCKET, SECRET_KEY, SeaweedProcess

from lrf_core.errors import LrfError, StorageError
from lrf_core.releases import WriteResult, list_releases, read_index, verify_version
from lrf_core.storage import Store, open_store

MOMENTS = 50


@pytest.fixture
def mortal(
    own_seaweed: SeaweedProcess, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> SeaweedProcess:
    """A server to kill, whose address and keys are in the environment.

    The store tries nothing again, so that a publisher feels each blow.
    """
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    for name, value in own_seaweed.server.environment().items():
        monkeypatch.setenv(name, value)
    return own_seaweed


def start_again(mortal: SeaweedProcess, store: Store) -> None:
    """Until it takes and gives data: it answers a second before its volumes are known."""
    mortal.start()
    deadline = time.monotonic() + 60
    while True:
        try:
            store.put("probe", b"alive")
            assert store.get("probe") == b"alive"
        except StorageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def publish_until_done(content: Content, store: Store) -> tuple[WriteResult, int]:
    """Run again after every failure, as an operator or a pipeline does; the number of failures."""
    for failures in range(200):
        try:
            return content.with_report(b"attempt %d" % failures).write(store), failures
        except StorageError as error:
            said = str(error)
        assert "\n" not in said
        assert SECRET_KEY not in said
        time.sleep(0.2)
    pytest.fail("200 attempts were not enough")


@pytest.mark.slow
def test_the_server_is_killed_at_50_random_moments(mortal: SeaweedProcess, tmp_path: Path) -> None:
    store, dice = open_store(f"s3://{mortal.server.bucket}/killed"), random.Random(1)
    counted = Counting(store, lambda number: None)
    assert Content(tmp_path / "files", b"model 0").write(counted).number == 1
    hit = 0
    for moment in range(1, MOMENTS + 1):
        now = threading.Event()
        operation, delay = dice.randint(1, counted.done), dice.uniform(0, 0.005)

        def tell(number: int, operation: int = operation, now: threading.Event = now) -> None:
            if number == operation:
                now.set()

        def kill_and_start(delay: float = delay, now: threading.Event = now) -> None:
            now.wait()
            time.sleep(delay)  # into the operation that begins
            mortal.kill()
            start_again(mortal, store)

        killer = threading.Thread(target=kill_and_start)
        killer.start()
        content = Content(tmp_path / "files", b"model %d" % moment)
        written, failures = publish_until_done(content, Counting(store, tell))
        now.set()  # a blob that was there already saves operations
        killer.join()
        hit += failures > 0
        assert written.number == moment + 1
        assert verify_version(store, "tiny", written.number) == []

    assert hit > MOMENTS / 2  # a publisher noticed
    index = read_index(store, "tiny")
    assert index is not None
    versions = [entry.version for entry in index.versions]
    assert len(set(versions)) == len(versions) == MOMENTS + 1
    assert index.aliases == {"latest": MOMENTS + 1}
    for listed in list_releases(store, "tiny"):
        assert verify_version(store, "tiny", listed.number) == []
    left = {key.split("/")[1] for key in store.list("tiny/")}
    assert left == {*versions, "index.json"}


def test_a_server_that_is_gone_is_one_line(mortal: SeaweedProcess, tmp_path: Path) -> None:
    store = open_store(f"s3://{mortal.server.bucket}/gone")
    mortal.kill()
    with pytest.raises(LrfError, match="check LRF_S3_ENDPOINT") as caught:
        Content(tmp_path).write(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", Fault)
def test_whatever_breaks_on_the_way_running_again_completes(
    fault: Fault, faulty_proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a retry inside of the store: each fault ends a publish somewhere else."""
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    store = open_store(f"s3://{BUCKET}/broken/{fault.name}")
    faulty_proxy.at_random(0.05, 7, fault)
    published = [
        publish_until_done(Content(tmp_path, b"model %d" % number), store) for number in range(4)
    ]
    faulty_proxy.clear()

    assert [written.number for written, _ in published] == [1, 2, 3, 4]
    for number in range(1, 5):
        assert verify_version(store, "tiny", number) == []
    left = {key.split("/")[1] for key in store.list("tiny/")}
    assert left == {"index.json", *(written.release.version for written, _ in published)}
