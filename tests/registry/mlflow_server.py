"""A real MLflow server for tests: sqlite, artifacts in SeaweedFS, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import urllib3
from seaweed import Seaweed


@contextmanager
def running_mlflow(folder: Path, seaweed: Seaweed) -> Iterator[str]:
    """The address of the running server; it and its children are stopped at the end."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}"]
    command += ["--workers=1", f"--backend-store-uri=sqlite:///{folder}/mlflow.sqlite"]
    command += [f"--artifacts-destination=s3://{seaweed.bucket}/mlflow"]
    environment = {
        **os.environ,
        **seaweed.environment(),
        "MLFLOW_S3_ENDPOINT_URL": seaweed.endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Seven processes that run jobs of generative AI.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if not _is_up(address, server):
            pytest.fail(f"MLflow does not start:\n{(folder / 'log').read_text()[-2000:]}")
        yield address
    finally:
        _stop(server)


def _is_up(address: str, server: subprocess.Popen[bytes], within_s: float = 180.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if urllib3.request("GET", f"{address}/health", timeout=5, retries=False).status == 200:
                return True
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.3)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop it and its children: a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
