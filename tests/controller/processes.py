"""Controllers as processes: started, asked over HTTP, killed, told to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
LIGHT = (sys.executable, str(Path(__file__).with_name("light_controller.py")))
REAL = (sys.executable, "-m", "lrf_core", "controller", "--config")


def wait_for(what: Callable[[], Any], why: Callable[[], str], within_s: float = 300.0) -> Any:
    """What it returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(why())


@dataclass
class Controller:
    """A controller process and its files in `folder`.

    Attributes:
        settings: its YAML file; `specs`, `listen` and `poll` are added.
        environment: beside this process' own.
        arguments: follow the file's name.
    """

    folder: Path
    settings: dict[str, Any]
    specs: Mapping[str, dict[str, Any]]
    environment: Mapping[str, str]
    command: Sequence[str] = LIGHT
    arguments: Sequence[str] = ()
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        specs = self.folder / "specs"
        specs.mkdir(parents=True, exist_ok=True)
        for name, spec in self.specs.items():
            (specs / f"{name}.yaml").write_text(yaml.safe_dump(spec))
        config = self.folder / "controller.yaml"
        own = {"specs": str(specs), "listen": f"127.0.0.1:{self.port}", "poll": "200ms"}
        config.write_text(yaml.safe_dump({**own, **self.settings}))
        paths = [str(ROOT), str(ROOT / "tests" / "releases")]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, str(config), *self.arguments],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **self.environment},
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: self.ask("/healthz") == 200, self.log)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def ask(self, path: str) -> int:
        """The status; 0 if nobody answers. Raises AssertionError where the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return self._get(path).status
        except urllib3.exceptions.HTTPError:
            return 0

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Values by name and the values of the labels."""
        text = self._get("/metrics").data.decode()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def requests(self) -> dict[str, int]:
        """How many requests are in which state, by its metrics."""
        found: dict[str, int] = {}
        for (name, *labels), value in self.metrics().items():
            if name == "lrf_controller_requests":
                found[labels[1]] = found.get(labels[1], 0) + int(value)
        return found

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")[-6000:]

    @property
    def log_file(self) -> Path:
        return self.folder / "controller.log"

    def _get(self, path: str) -> urllib3.BaseHTTPResponse:
        url = f"http://127.0.0.1:{self.port}{path}"
        return urllib3.request("GET", url, timeout=10, retries=False)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
