"""Start the process that reads a model file, judge how it ended, and make the model it read."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

import lrf_core
from lrf_core.artifacts import MODEL_FILE
from lrf_core.errors import ModelError, SandboxError
from lrf_core.files.scratch import scratch_folder
from lrf_core.models.safety import check_size, checked_model
from lrf_core.sandbox.carried import made_from
from lrf_core.sandbox.confine import WALLS, Limits
from lrf_core.sandbox.setting import VARIABLE

_logger = logging.getLogger("lrf")

_BOOT = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request["path"]
from lrf_core.models.sandbox_child import main
main(request)
"""
_MIB = 1 << 20
_MOST_JSON = 64 * _MIB
_TRUST = f"if you trust where the file comes from, set {VARIABLE}=0"
# What the interpreter, TensorFlow and the C library read outside their own folders.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/dev/urandom",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices/system",
)
# One thread is enough, and each reserves address space, which is limited.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_INHERITED = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH")
_shown: set[tuple[str, ...]] = set()


def limits_for(size: int) -> Limits:
    """What reading files of that many bytes may use: several times what it does."""
    return Limits(
        memory=2048 * _MIB + 8 * size, cpu=120 + size // (5 * _MIB), file=1024 * _MIB + 4 * size
    )


def read_in_sandbox(
    source: Path,
    weights: Path | None = None,
    limits: Limits | None = None,
    timeout_s: float | None = None,
) -> tuple[keras.Model, dict[str, Any] | None]:
    """As `read_model`, with the file opened by a process that can do nothing but read it.

    This process gets JSON and raw numbers, and none of the file's bytes: it checks the config once
    more, and makes the model of that.

    Args:
        source, weights: as `read_model` takes them.
        limits: of that process; default: `limits_for` the size of the files.
        timeout_s: default: 300 seconds and one for each MiB.

    Raises:
        ModelError: what `read_model` says of the file; or reading it tried to do something else,
            used up too much, took too long, or crashed.
        SandboxError: the process cannot be started here.
    """
    size = sum(file.stat().st_size for file in _files(source, weights))
    limits = limits or limits_for(size)
    timeout_s = timeout_s or 300.0 + size / _MIB
    with _memory_file() as result, _memory_file() as log, _private_folder() as writable:
        request = {
            "parent": os.getpid(),
            "path": _search_path(),
            "readable": [*map(str, _readable()), *map(str, _files(source, weights))],
            "writable": writable,
            "result": result,
            "limits": asdict(limits),
            "source": str(source.absolute()),
            "weights": None if weights is None else str(weights.absolute()),
        }
        code = _run(request, log, source, timeout_s)
        for line in os.pread(log, 64 << 10, 0).decode(errors="replace").splitlines():
            _logger.debug("sandbox: %s", _shown_text(line))
        try:
            return _model(result, code, source, limits)
        except ModelError as error:
            given = {str(path.absolute()): str(path) for path in (weights, source) if path}
            text = str(error)
            for absolute, relative in given.items():
                text = text.replace(absolute, relative)
            raise ModelError(text) from None


def _files(source: Path, weights: Path | None) -> list[Path]:
    """What may be read of a model: these files, not the folders that they are in."""
    named = (source, source / MODEL_FILE, *([weights] if weights else []))
    return [path.absolute() for path in named if path.is_file()]


def _run(request: dict[str, Any], log: int, source: Path, timeout_s: float) -> int:
    """Run the process to its end; returns its exit code, or minus the signal that ended it."""
    command = [sys.executable, "-I", "-B", "-X", "utf8", "-c", _BOOT]
    home = next(iter(request["writable"]), "/nonexistent")
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    own = {"HOME": home, "TMPDIR": home, "KERAS_HOME": home}
    environment = {**_ENVIRONMENT, **inherited, **own, "KERAS_BACKEND": keras.backend.backend()}
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(request["result"],),
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(
            f"cannot start a process that reads {source}: {error.strerror or error}; make room for "
            f"it, or set {VARIABLE}=0"
        ) from None
    with process:
        try:
            process.communicate(json.dumps(request).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise _refused(source, f"took longer than {timeout_s:.0f} seconds") from None
        finally:
            process.kill()
    return process.returncode


def _model(
    result: int, code: int, source: Path, limits: Limits
) -> tuple[keras.Model, dict[str, Any] | None]:
    if code < 0:
        raise _refused(source, _ending(-code, limits))
    size = os.fstat(result).st_size
    if code or not size:
        raise SandboxError(
            f"the process that reads {source} ended with exit code {code} before it read anything; "
            f"LRF_LOG_LEVEL=debug shows what it wrote. Install lrf again, or set {VARIABLE}=0"
        )
    with open(result, "rb", closefd=False) as content:
        content.seek(0)
        found = _header(content.readline(_MOST_JSON), source)
        _judge(found, source, limits)
        try:
            left = size - content.tell()
            config = checked_model(found["model"]["config"], str(source))
            check_size(config, left, str(source))
            model = made_from({**found["model"], "config": config}, content, left)
            compiled = found.get("compiled")
            return model, compiled if isinstance(compiled, dict) else None
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - Keras raises many types
            raise _refused(
                source, f"gave a model that cannot be made again: {_shown_text(str(error))}"
            ) from None


def _header(line: bytes, source: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise _refused(source, "gave no model") from None
    if not isinstance(found, dict):
        raise _refused(source, "gave no model")
    return found


def _judge(found: dict[str, Any], source: Path, limits: Limits) -> None:
    """Raise unless a process has read a model; it wrote this itself, and may have been taken over,
    so that nothing depends on it but the words."""
    if "broken" in found:
        raise SandboxError(
            f"the process that reads {source} cannot import Keras "
            f"({_shown_text(str(found['broken']))}); install it as other packages are, or set "
            f"{VARIABLE}=0"
        )
    if isinstance(walls := found.get("walls"), list):
        _show(tuple(wall for wall in WALLS if wall in walls))
    if "attempt" in found:
        raise _refused(source, f"tried to {_shown_text(str(found['attempt']))}")
    if "exhausted" in found:
        raise _refused(source, _memory(limits))
    if "refused" in found:
        raise ModelError(_shown_text(str(found["refused"]), 2000))
    if "unable" in found:
        raise SandboxError(_shown_text(str(found["unable"]), 2000))
    if "failed" in found:
        raise _refused(source, f"failed: {_shown_text(str(found['failed']))}")
    model = found.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("config"), dict):
        raise _refused(source, "gave no model")


def _ending(number: int, limits: Limits) -> str:
    if number == signal.SIGSYS:
        return (
            "tried what reading never needs (the network, another process, or a part of the "
            "kernel), and was stopped"
        )
    if number == signal.SIGXCPU:
        return f"needed more than {limits.cpu} seconds of processor time"
    return (
        f"crashed, or {_memory(limits)} or than there is (signal {number}, "
        f"{signal.strsignal(number)})"
    )


def _memory(limits: Limits) -> str:
    return f"needed more than {limits.memory / 1e9:.1f} GB of memory"


def _refused(source: Path, what: str) -> ModelError:
    return ModelError(f"{source}: the model was refused: reading it {what}; {_TRUST}")


def _show(walls: tuple[str, ...]) -> None:
    """Say once what holds here."""
    if walls in _shown:
        return
    _shown.add(walls)
    held = ", ".join([*walls, "memory, time"])
    if missing := [wall for wall in WALLS if wall not in walls]:
        _logger.warning(
            "the sandbox of model files restricts %s, but not %s, which this system does not offer",
            held,
            " and ".join(missing),
        )
    else:
        _logger.debug("the sandbox of model files restricts %s", held)


def _shown_text(text: str, most: int = 300) -> str:
    """One line of printable text, whatever a process wrote."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)[:most]


def _packages() -> list[Path]:
    """The folders that Python and packages were installed to."""
    paths = sysconfig.get_paths()
    standard = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = [Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    return [*standard, *installed]


def _readable() -> list[Path]:
    own = Path(lrf_core.__file__).parent
    libraries = [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if p]
    interpreter = Path(sysconfig.get_paths()["stdlib"]).parent
    used = [Path(keras.__file__).parent]
    return [*_packages(), interpreter, own, *used, *libraries, *map(Path, _SYSTEM)]


def _search_path() -> list[str]:
    """Where the process finds modules: not what users put in the way of them."""
    folders = _packages()
    kept = [p for p in sys.path if p and any(Path(p).is_relative_to(f) for f in folders)]
    return [*kept, str(Path(lrf_core.__file__).parents[1]), str(Path(keras.__file__).parents[1])]


@contextmanager
def _memory_file() -> Iterator[int]:
    """A file that both processes have open, in memory where the platform has such."""
    if hasattr(os, "memfd_create"):
        opened = os.memfd_create("lrf-sandbox")
        try:
            yield opened
        finally:
            os.close(opened)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()


@contextmanager
def _private_folder() -> Iterator[list[str]]:
    """A folder for that process alone: it reads from a copy of what it checked."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder("sandbox"))
        except OSError as error:
            raise SandboxError(
                f"cannot make a temporary folder: {error.strerror or error}; set TMPDIR to one "
                "that can be written"
            ) from None
        yield [os.path.realpath(folder)]
