"""SIGINT and SIGTERM end real processes in one line, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import Trained

ROOT = Path(__file__).parents[1]
MESSAGE = "lrf: interrupted; run the same command again to go on"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}

Ready = Callable[[subprocess.Popen[str]], bool]


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it left."""

    code: int
    err: str
    seconds: float
    left: list[str]


def once_it_is_caught(process: subprocess.Popen[str]) -> bool:
    """Before that, Python itself starts, and ends with a traceback."""
    # What the parent catches is seen until the program is loaded.
    time.sleep(0.02)
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def after(seconds: float) -> Ready:
    """So long after it is caught."""

    def ready(process: subprocess.Popen[str]) -> bool:
        if not once_it_is_caught(process):
            return False
        time.sleep(seconds)
        return True

    return ready


def once_there_is(folder: Path, pattern: str) -> Ready:
    return lambda process: any(folder.glob(pattern))


def interrupted(
    arguments: Sequence[object], number: signal.Signals, ready: Ready, temporary: Path
) -> Ended:
    """Start `python -m ...`, send a signal when it is ready, and see what is left of it."""
    temporary.mkdir(exist_ok=True)
    mark = f"LRF_TEST_MARK={temporary}"
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "LRF_LOG_LEVEL": "debug",
            "LRF_TEST_MARK": str(temporary),
        },
        start_new_session=True,
        # A shell that starts the tests in the background ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not ready(process):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        seconds = time.monotonic() - started
    finally:
        process.kill()
        process.wait()
    left = [*(path.name for path in temporary.iterdir()), *_marked(mark)]
    return Ended(process.returncode, err, seconds, left)


def _marked(mark: str) -> list[str]:
    """Command lines of the processes that have this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue  # it has ended, or is another user's
    return found


def check(ended: Ended, number: signal.Signals) -> None:
    assert ended.code == CODES[number], ended.err
    assert ended.err.count(MESSAGE) == 1, ended.err
    assert ended.err.rstrip().endswith(MESSAGE)
    assert "Traceback" not in ended.err
    assert ended.left == []
    assert ended.seconds < 20


def compress(trained: Trained, out: Path) -> list[object]:
    settings = ["--data", trained.data_file, "--out", out, "--params-reduction", "0.3"]
    return ["lrf_core", "compress", trained.model_file, *settings, "--epochs", "500"]


def pipeline(trained: Trained, out: Path) -> list[object]:
    spec = out.parent / "spec.yaml"
    spec.write_text(
        f"model: {trained.model_file}\ndata: {trained.data_file}\nout: {out}\n"
        "goal: {params_reduction: 0.3}\nexplore: {shards: 4}\nfinetune: {epochs: 500}\n"
    )
    return ["pipelines", "run", spec]


@pytest.mark.parametrize("number", CODES)
def test_a_signal_in_the_first_second_is_one_line(
    number: signal.Signals, trained: Trained, tmp_path: Path
) -> None:
    command = compress(trained, tmp_path / "out")
    for ready in (once_it_is_caught, after(0.5)):
        check(interrupted(command, number, ready, tmp_path / "tmp"), number)


def test_a_signal_while_layers_are_scored_is_one_line(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ready = once_there_is(out, "analysis.json")
    check(
        interrupted(compress(trained, out), signal.SIGTERM, ready, tmp_path / "tmp"), signal.SIGTERM
    )


def test_a_signal_while_a_pipeline_starts_is_one_line(trained: Trained, tmp_path: Path) -> None:
    command = pipeline(trained, tmp_path / "out")
    ended = interrupted(command, signal.SIGINT, once_it_is_caught, tmp_path / "tmp")
    check(ended, signal.SIGINT)


def test_a_signal_to_a_controller_that_starts_is_one_line(tmp_path: Path) -> None:
    command = ["lrf_core", "controller", "--config", tmp_path / "none.yaml"]
    ended = interrupted(command, signal.SIGTERM, once_it_is_caught, tmp_path / "tmp")
    check(ended, signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from lrf_core.console import interrupts\ninterrupts.install()\nos.kill(os.getpid(), 2)\n"
        "print('on')"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, b"on\n")


def test_an_exception_that_a_library_makes_of_a_signal_ends_like_it() -> None:
    script = (
        "import os, sys, typer\nfrom lrf_core.commands import app as cli\n"
        "from lrf_core.console import interrupts\ninterrupts.install()\n"
        "app = typer.Typer()\n@app.command()\ndef run():\n"
        "    try:\n        os.kill(os.getpid(), 15)\n        import time; time.sleep(5)\n"
        "    except KeyboardInterrupt:\n        raise RuntimeError('callback failed')\n"
        "cli.run_command_line(app)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 143
    assert ended.stderr.count(MESSAGE) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1, 2, 4])
def test_a_signal_at_any_moment_is_one_line(
    number: signal.Signals, seconds: float, trained: Trained, tmp_path: Path
) -> None:
    command = compress(trained, tmp_path / "out")
    ready = after(seconds)
    check(
        interrupted(
            command,
            number,
            lambda process: ready(process) and once_it_is_caught(process),
            tmp_path / "tmp",
        ),
        number,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_a_model_is_trained_is_one_line(
    number: signal.Signals, trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ready = once_there_is(out, "plan.json")
    check(interrupted(compress(trained, out), number, ready, tmp_path / "tmp"), number)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(
    "step",
    [
        "pipeline/*/analyze",
        "pipeline/*/for-loop-1-iteration-0",
        "pipeline/*/for-loop-1-iteration-2",
        "pipeline/*/merge",
    ],
)
def test_a_signal_to_a_pipeline_ends_its_steps(
    number: signal.Signals, step: str, trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ready = once_there_is(out, step)
    ended = interrupted(pipeline(trained, out), number, ready, tmp_path / "tmp")
    check(ended, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_a_signal_ends_the_workers_of_fine_tuning(
    number: signal.Signals, trained: Trained, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [*compress(trained, out), "--set", "finetune.workers=2"]
    temporary = tmp_path / "tmp"
    ready = once_there_is(temporary, "lrf-workers-*/worker-1.log")
    check(interrupted(command, number, ready, temporary), number)
