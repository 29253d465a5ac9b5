from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import tiny_cnn, tiny_data

from lrf_core.artifacts import FinetuneRecord
from lrf_core.commands.app import app
from lrf_core.console import progress
from lrf_core.data import Data, open_data
from lrf_core.errors import EXIT_BAD_INPUT, ArtifactError, ModelError, SpecError, WorkerError
from lrf_core.models.compiled import Compiled, compiled_from
from lrf_core.models.load import model_digest
from lrf_core.spec import FinetuneSpec
from lrf_core.stages import finetune_worker as worker
from lrf_core.stages.finetune import finetune
from lrf_core.training.distribute import local_commands
from lrf_core.training.job import Job, read_result
from lrf_core.training.launch import run_workers

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="several workers train on Keras' JAX backend: pip install 'lrf[jax]'",
)
SETTINGS = FinetuneSpec(
    epochs=2,
    batch_size=32,
    learning_rate=3e-3,
    distillation=0.5,
    validation_share=0.1,
    checkpoint_seconds=0.0,
)
BATCHES = 2 * (230 // 32)


@dataclasses.dataclass(frozen=True)
class Problem:
    """A student with batch normalization and without dropout, and data that lie in a file."""

    student: keras.Model
    teacher: keras.Model
    data: Data


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    data, file = tiny_data(256, 64), tmp_path_factory.mktemp("data") / "tiny.npz"
    (x_train, y_train), (x_test, y_test) = data.train.arrays(), data.test.arrays()
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    teacher = tiny_cnn()
    return Problem(tiny_cnn(seed=1), teacher, open_data(str(file), teacher))


@pytest.fixture(scope="module")
def by_two(problem: Problem) -> tuple[keras.Model, FinetuneRecord]:
    settings = SETTINGS.model_copy(update={"workers": 2})
    return finetune(problem.student, problem.teacher, problem.data, settings=settings)


@pytest.fixture
def by_one(problem: Problem, tmp_path: Path) -> tuple[keras.Model, FinetuneRecord]:
    """Of a single process on the same backend."""
    job = Job.of(problem.student, problem.teacher, problem.data, SETTINGS, 0, Compiled())
    job.write(tmp_path, problem.student, problem.teacher)
    run_workers(local_commands(tmp_path, 1), tmp_path)
    return read_result(tmp_path)


@needs_jax
@pytest.mark.slow
def test_the_loss_curve_of_two_workers_is_that_of_one(by_one, by_two) -> None:
    (one, single), (two, double) = by_one, by_two
    assert double.lineage.settings == {**single.lineage.settings, "workers": 2}
    assert double.lineage.inputs == single.lineage.inputs
    assert double.steps == single.steps == BATCHES
    for name in ("loss", "validation_loss", "validation_accuracy"):
        expected, found = (
            [getattr(point, name) for point in record.curve] for record in (single, double)
        )
        assert len(expected) == 3
        assert found == pytest.approx(expected, rel=1e-5), name
    assert single.curve[2].loss < single.curve[1].loss
    for expected, found in zip(one.get_weights(), two.get_weights(), strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def workers_of_this_process() -> dict[int, int]:
    """Rank to process id."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            arguments = (status.parent / "cmdline").read_text().split("\0")
            mine = f"\nPPid:\t{os.getpid()}\n" in status.read_text()
        except OSError:
            continue  # it has ended meanwhile
        if mine and "lrf_core.stages.finetune_worker" in arguments:
            found[int(arguments[arguments.index("--rank") + 1])] = int(status.parent.name)
    return found


@contextmanager
def watched(on_batches: list[int], kill_at: int | None = None) -> Iterator[None]:
    """Note how far training is; kill worker 1 if it has come to a batch."""

    @contextmanager
    def display(description: str, total: int) -> Iterator[progress.Advance]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            before, done = done, done + steps
            if description == "Fine-tuning":
                on_batches.append(done)
                if kill_at is not None and before < kill_at <= done:
                    os.kill(workers_of_this_process()[1], signal.SIGKILL)

        yield advance

    with progress.shown_by(display):
        yield


@needs_jax
@pytest.mark.slow
def test_training_goes_on_after_a_worker_was_killed(problem, by_two, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"workers": 2, "checkpoint": str(tmp_path)})
    arguments = (problem.student, problem.teacher, problem.data)
    killed: list[int] = []
    expected = r"worker 1 of 2 was killed by SIGKILL.*run it again.*goes on from its last"
    with watched(killed, kill_at=BATCHES // 2), pytest.raises(WorkerError, match=expected):
        finetune(*arguments, settings=settings)
    assert killed[-1] < BATCHES
    assert workers_of_this_process() == {}
    again: list[int] = []
    with watched(again):
        trained, record = finetune(*arguments, settings=settings)
    assert again[-1] <= BATCHES - (BATCHES // 2 - 1)  # not from the beginning
    assert record.steps == BATCHES
    assert model_digest(trained) == record.after_digest
    losses = [[point.validation_loss for point in each.curve] for each in (record, by_two[1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@needs_jax
@pytest.mark.slow
def test_fine_tuning_runs_without_tensorflow_where_keras_runs_on_jax() -> None:
    script = "import sys, lrf_core.stages.finetune; print('tensorflow' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert found.stdout == "False\n"


@pytest.mark.parametrize("command", ["finetune", "compress"])
def test_the_number_of_workers_is_checked_with_the_spec(command: str) -> None:
    arguments = [command, "model.keras", "--data", "digits.npz", "--set", "finetune.workers=0"]
    with pytest.raises(SpecError, match=r"setting 'finetune\.workers'.*greater than or equal to 1"):
        app(arguments, standalone_mode=False)


def test_several_workers_need_jax(problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # as if it were not installed
    settings = SETTINGS.model_copy(update={"workers": 2})
    with pytest.raises(SpecError, match=r"workers: 2 needs jax; pip install 'lrf\[jax\]'"):
        finetune(problem.student, problem.teacher, problem.data, settings=settings)


@needs_jax
def test_a_worker_that_finds_other_data_says_so(
    problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back when the worker has set it
    other = dataclasses.replace(problem.data, digest="0" * 64)
    job = Job.of(problem.student, problem.teacher, other, SETTINGS, 0, Compiled())
    job.write(tmp_path, problem.student, problem.teacher)
    with caplog.at_level(logging.INFO, logger="lrf"):
        assert worker.main([str(tmp_path), "--count", "1"]) == EXIT_BAD_INPUT
    assert "failed, exit code 2: workers read other data from" in caplog.text


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no job for workers in"):
        Job.read(tmp_path)


def test_jobs_that_come_to_the_same_have_one_digest(problem) -> None:
    arguments = (problem.student, problem.teacher, problem.data)
    jobs = [
        Job.of(*arguments, SETTINGS.model_copy(update=settings), seed, Compiled())
        for settings, seed in (({}, 0), ({}, 0), ({}, 1), ({"epochs": 3}, 0))
    ]
    assert jobs[0].digest == jobs[1].digest
    assert len({job.digest for job in jobs}) == 3


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1, reduction=None),
        keras.losses.sparse_categorical_crossentropy,
    ],
)
def test_workers_get_the_loss_and_the_metrics(loss) -> None:
    metrics = ("accuracy", keras.metrics.TopKCategoricalAccuracy(k=2, name="top2"))
    given = Compiled(loss, metrics)
    made = compiled_from(json.loads(json.dumps(given.config())))
    labels, answers = np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.5, 0.2, 0.3]], np.float32)
    assert made.name == given.name
    assert np.allclose(made.losses(labels, answers), given.losses(labels, answers))
    assert made.measured(labels, answers) == given.measured(labels, answers)
    assert compiled_from(Compiled().config()) == Compiled()


def test_a_loss_of_ones_own_is_refused_in_plain_words() -> None:
    def mine(targets, answers):
        return keras.ops.sum(answers, axis=-1)

    config = json.loads(json.dumps(Compiled(mine).config()))
    with pytest.raises(ModelError, match="workers cannot make the loss"):
        compiled_from(config)


# Workers that train nothing, to see how they are started and stopped.
REPORTING = """
import os, sys, time
from pathlib import Path
from lrf_core.training.events import Sender
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
sender = Sender(os.fdopen(int(sys.argv[-1]), "w"))
(folder / f"pid-{rank}").write_text(str(os.getpid()))
(folder / f"threads-{rank}").write_text(os.environ["PJRT_NPROC"])
"""
WAITING = """
import threading
from lrf_core.stages.finetune_worker import end_with_parent
threading.Thread(target=end_with_parent, daemon=True).start()
(folder / f"waits-{rank}").touch()
time.sleep(600)
"""


def scripts(folder: Path, *endings: str) -> list[list[str]]:
    return [
        [sys.executable, "-c", REPORTING + ending, str(folder), str(rank)]
        for rank, ending in enumerate(endings)
    ]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_error_of_a_worker_is_handed_on_and_the_others_stop(tmp_path: Path) -> None:
    fails = """
while not (folder / "waits-1").exists():
    time.sleep(0.05)
sender.failed(2, "there is\\n no such file")
sys.exit(2)
"""
    with pytest.raises(WorkerError, match=r"^there is no such file$") as caught:
        run_workers(scripts(tmp_path, fails, WAITING), tmp_path)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert has_ended(int((tmp_path / "pid-1").read_text()))


def test_a_worker_that_ends_without_a_word_is_quoted(tmp_path: Path) -> None:
    ends = "print('out of luck', flush=True)\nos._exit(9)"
    expected = "worker 1 of 2 ended with 9, saying: out of luck"
    with pytest.raises(WorkerError, match=expected) as caught:
        run_workers(scripts(tmp_path, WAITING, ends), tmp_path)
    assert caught.value.exit_code == WorkerError.exit_code


def test_progress_and_log_are_those_of_the_first_worker(tmp_path: Path, caplog) -> None:
    works = """
import logging
with sender.attached():
    from lrf_core.console.progress import track
    for step in track(range(3), f"Work of {rank}"):
        logging.getLogger("lrf").info("worker %d is at %d", rank, step)
"""
    done: list[str] = []

    @contextmanager
    def display(description: str, total: int) -> Iterator[progress.Advance]:
        yield lambda steps: done.append(f"{description}: {steps} of {total}")

    with progress.shown_by(display), caplog.at_level(logging.INFO, logger="lrf"):
        run_workers(scripts(tmp_path, works, works), tmp_path)
    assert done == ["Work of 0: 1 of 3"] * 3
    assert caplog.messages == [f"worker 0 is at {step}" for step in range(3)]


def test_workers_divide_the_processors(tmp_path: Path) -> None:
    run_workers(scripts(tmp_path, "", ""), tmp_path)
    threads = [int((tmp_path / f"threads-{rank}").read_text()) for rank in (0, 1)]
    assert threads == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_process_that_started_it(tmp_path: Path, ended_by: int) -> None:
    launcher = (
        "import json, signal, sys\n"
        "from pathlib import Path\n"
        "from lrf_core.training.launch import run_workers\n"
        # Whoever runs the tests in the background ignores it, and so would what they start.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "run_workers(json.loads(sys.argv[1]), Path(sys.argv[2]))"
    )
    commands = json.dumps(scripts(tmp_path, WAITING, WAITING))
    parent = subprocess.Popen(
        [sys.executable, "-c", launcher, commands, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    waiting = [tmp_path / f"waits-{rank}" for rank in (0, 1)]
    wait_for(lambda: all(file.exists() for file in waiting) or parent.poll() is not None)
    pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in (0, 1)]
    assert not any(has_ended(pid) for pid in pids)
    parent.send_signal(ended_by)
    assert parent.wait(60) != 0
    wait_for(lambda: all(has_ended(pid) for pid in pids))
