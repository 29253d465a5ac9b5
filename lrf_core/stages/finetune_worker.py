"""One worker of fine-tuning: `python -m lrf_core.stages.finetune_worker FOLDER`.

Which one of how many it is, and where the first one listens, are flags, or what the jax runtime of
Kubeflow Trainer sets: JAX_PROCESS_ID, JAX_NUM_PROCESSES, JAX_COORDINATOR_ADDRESS.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from lrf_core.console import interrupts, progress, terminal
from lrf_core.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, DataError, LrfError
from lrf_core.redaction import one_line
from lrf_core.training.events import Sender

# What Kubernetes reports as the reason why a container ended.
_TERMINATION_LOG = Path("/dev/termination-log")
_logger = logging.getLogger("lrf")


def main(arguments: Sequence[str]) -> int:
    """Train, and return the exit code."""
    asked = _parsed(arguments)
    os.environ["KERAS_BACKEND"] = "jax"  # before anything imports Keras
    if asked.events is None:
        return _in_pod(asked)
    threading.Thread(target=end_with_parent, daemon=True).start()
    with os.fdopen(asked.events, "w", encoding="utf-8") as pipe:
        sender = Sender(pipe)
        with sender.attached():
            return _reported(asked, sender.failed)


def _in_pod(asked: argparse.Namespace) -> int:
    logging.basicConfig(format="[lrf finetune] %(message)s", stream=sys.stdout)
    _logger.setLevel(logging.INFO)

    def failed(exit_code: int, reason: str) -> None:
        line = " ".join(reason.split())
        _logger.error("failed, exit code %d: %s", exit_code, line)
        if _TERMINATION_LOG.exists():  # in a pod
            _TERMINATION_LOG.write_text(line, encoding="utf-8")

    with progress.shown():
        return _reported(asked, failed)


def _reported(asked: argparse.Namespace, failed: Callable[[int, str], None]) -> int:
    try:
        _train(asked)
    except LrfError as error:
        failed(error.exit_code, str(error))
        return error.exit_code
    except Exception as error:
        _logger.debug("unexpected", exc_info=True)
        failed(EXIT_FAILURE, f"unexpected {type(error).__name__}: {one_line(error)}")
        return EXIT_FAILURE
    return EXIT_OK


def _train(asked: argparse.Namespace) -> None:
    import jax
    import keras

    if asked.count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # With a seed, Keras does not agree on one over the network.
        keras.utils.set_random_seed(0)
        # Before anything is computed: where that happens is settled then.
        keras.distribution.initialize(asked.coordinator, asked.count, asked.rank)
    _finetune(asked.folder, asked.rank, asked.count)
    if asked.count > 1:
        jax.distributed.shutdown()  # waits for the others


def _finetune(folder: Path, rank: int, count: int) -> None:
    from lrf_core.data import open_data
    from lrf_core.models.compiled import compiled_from
    from lrf_core.stages.finetune import finetune
    from lrf_core.training.distribute import Workers
    from lrf_core.training.job import Job, models_of, write_result

    job = Job.read(folder)
    model, teacher = models_of(folder)
    data = open_data(job.source, teacher, job.seed)
    if data.digest != job.data:
        raise DataError(
            f"workers read other data from {job.source} than fine-tuning was called with; give "
            "what open_data returned, with the same seed"
        )
    trained, record = finetune(
        model,
        teacher,
        data,
        settings=job.settings,
        seed=job.seed,
        compiled=compiled_from(job.compiled),
        workers=Workers(rank, count),
    )
    if rank == 0:
        write_result(folder, trained, record)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lrf_core.stages.finetune_worker", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="what `lrf_core.training.job` describes")
    parser.add_argument("--rank", type=int, default=int(os.environ.get("JAX_PROCESS_ID", "0")))
    parser.add_argument("--count", type=int, default=int(os.environ.get("JAX_NUM_PROCESSES", "1")))
    parser.add_argument("--coordinator", default=os.environ.get("JAX_COORDINATOR_ADDRESS"))
    parser.add_argument("--events", type=int, help="file descriptor to report to")
    return parser.parse_args(arguments)


def end_with_parent() -> None:
    """Standard input is a pipe that the parent writes nothing to: it ends when the parent does."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would be held at exit
    os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    interrupts.install()
    terminal.protect()
    sys.exit(main(sys.argv[1:]))
