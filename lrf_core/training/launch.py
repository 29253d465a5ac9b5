"""Run workers as processes of this machine, until all are done or one fails."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrf_core.errors import WorkerError
from lrf_core.training.events import Receiver

# Two workers that fail over one cause do so within this time; the one that says why is quoted.
_GRACE_S = 2.0
_THREADS = ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    events: int
    receiver: Receiver
    log: Path


def run_workers(commands: Sequence[Sequence[str]], logs: Path) -> None:
    """Run one process for each command, and show the progress and log of the first.

    A command gets two more arguments, `--events` and a file descriptor to report to. Its standard
    input ends when this process does: it has to end then, too.

    Args:
        logs: folder for what each process prints.

    Raises:
        WorkerError: a process failed; the others are stopped.
    """
    environment = _environment(os.environ, _cpus(), len(commands))
    workers: list[_Worker] = []
    try:
        for rank, command in enumerate(commands):
            log = logs / f"worker-{rank}.log"
            workers.append(_started(command, environment, log, shows=rank == 0))
        _follow(workers)
    finally:
        _stop(workers)


def free_address() -> str:
    """`host:port` of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"{host}:{port}"


def _started(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, shows: bool
) -> _Worker:
    events, theirs = os.pipe()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, "--events", str(theirs)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[theirs],
                # Ctrl-C reaches this process alone, which stops them.
                start_new_session=True,
            )
    except OSError:
        os.close(events)
        raise
    finally:
        os.close(theirs)
    return _Worker(process, events, Receiver(shows), log)


def _follow(workers: Sequence[_Worker]) -> None:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.events, selectors.EVENT_READ, worker)
        while selector.get_map():
            for key, _ in selector.select():
                _take(selector, key.data)
            failed = next((rank for rank, w in enumerate(workers) if w.process.poll()), None)
            if failed is not None:
                _wait_for_others(selector)
                raise _failure(workers, failed)


def _take(selector: selectors.BaseSelector, worker: _Worker) -> None:
    content = os.read(worker.events, 1 << 16)
    if content:
        worker.receiver.take(content)
    else:
        selector.unregister(worker.events)
        worker.process.wait()  # it has closed the pipe: it is at its end


def _wait_for_others(selector: selectors.BaseSelector) -> None:
    """Hear what the others have to say: the first one to end need not be the one that knows why."""
    until = time.monotonic() + _GRACE_S
    while selector.get_map() and (left := until - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            _take(selector, key.data)


def _failure(workers: Sequence[_Worker], first: int) -> WorkerError:
    """What to tell. `first` is the rank of the first to end; others may suffer from that alone."""
    worker = workers[first]
    code = worker.process.returncode
    where = f"worker {first} of {len(workers)}"
    if code < 0:
        how = signal.Signals(-code).name
        return WorkerError(f"{where} was killed by {how}{_last_line(worker.log)}")
    said = [each.receiver.failed for each in workers if each.receiver.failed]
    if said:
        # An error that lrf raised on purpose, bad input say, before what libraries raise.
        exit_code, reason = max(said, key=lambda failed: failed[0])
        return WorkerError(reason, exit_code)
    return WorkerError(f"{where} ended with {code}{_last_line(worker.log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return f", saying: {said[-1][:200]}" if said else ""


def _stop(workers: Sequence[_Worker]) -> None:
    """Kill those that are left; the state of training is whole in the store at any time."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
    for worker in workers:
        worker.process.wait()
        worker.receiver.close()
        os.close(worker.events)
        if worker.process.stdin:
            worker.process.stdin.close()


def _environment(given: Mapping[str, str], cpus: int, workers: int) -> dict[str, str]:
    """Each worker with its part of the processors, so that they do not fight for them."""
    share = str(max(1, cpus // workers))
    # On one GPU, say, each would take all of its memory: who has several sets this.
    return {"JAX_PLATFORMS": "cpu", **dict.fromkeys(_THREADS, share), **given}


def _cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
