"""Prometheus, pushgateway and alertmanager themselves, on loopback; a skip if they are not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from json_api import Asked, json_api

PATIENCE_S = 120.0

# Debian's alertmanager does not start without it, wherever it is unpacked itself.
_TEMPLATE = Path("/usr/share/prometheus/alertmanager/default.tmpl")


def program(name: str, package: str) -> str:
    """Path of a program; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs the program {name} (Debian package {package})")
    return found


def eventually(attempt: Callable[[], Any], what: str) -> Any:
    """What the first attempt returns that is neither None, False nor empty."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = attempt()
        if found:
            return found
        assert time.monotonic() < deadline, f"in {PATIENCE_S:g} s not seen: {what}"
        time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Prometheus with this configuration; its address."""
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        "--log.level=error",
    ]
    with _served(command) as url:
        yield url


@contextmanager
def pushgateway(web_config: Path | None = None) -> Iterator[str]:
    """A pushgateway; its address. Args: web_config: e.g. with users and their passwords."""
    command = [
        program("prometheus-pushgateway", "prometheus-pushgateway"),
        "--log.level=error",
        *([f"--web.config.file={web_config}"] if web_config else []),
    ]
    with _served(command) as url:
        yield url


@contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """An alertmanager with this configuration; its address."""
    found = program("prometheus-alertmanager", "prometheus-alertmanager")
    if not _TEMPLATE.is_file():
        pytest.skip(f"needs {_TEMPLATE} (Debian package prometheus-alertmanager)")
    folder.mkdir(exist_ok=True)
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [
        found,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    with _served(command) as url:
        yield url


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook; its address, and the alerts that have come."""
    alerts: list[dict[str, Any]] = []

    def take(told: Asked) -> tuple[int, Any]:
        alerts.extend(told.body["alerts"])
        return 200, {}

    with json_api(take) as url:
        yield f"{url}/", alerts


def asked(url: str, path: str, **fields: str) -> Any:
    """The data that one of Prometheus' APIs answers with."""
    with urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", url + path, fields=fields or None)
    said = json.loads(answer.data)
    assert said["status"] == "success", said
    return said["data"]


@contextmanager
def _served(command: list[str], attempts: int = 3) -> Iterator[str]:
    """The program, once it says that it is ready; another process may take its port before it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen([*command, f"--web.listen-address={address}"])
    try:
        ready = _is_ready(process, f"http://{address}/-/ready")
        if ready:
            yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
    if not ready:
        assert attempts > 1, f"{command[0]} does not start"
        with _served(command, attempts - 1) as url:
            yield url


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    """False if the process has ended instead."""
    deadline = time.monotonic() + PATIENCE_S
    with urllib3.PoolManager(retries=False) as http:
        while process.poll() is None:
            try:
                # One that asks for a password is ready, too.
                if http.request("GET", url).status in (200, 401):
                    return process.poll() is None
            except urllib3.exceptions.HTTPError:
                assert time.monotonic() < deadline, f"nothing answers at {url}"
            time.sleep(0.1)
    return False
