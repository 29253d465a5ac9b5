"""Fine-tuning that is killed goes on where it was; that goes wrong stops with what it had."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import accuracy, tiny_cnn, tiny_data, train_tiny

from lrf_core.artifacts import FinetuneRecord
from lrf_core.data import Data
from lrf_core.models.compiled import Compiled
from lrf_core.models.load import model_digest, save_model
from lrf_core.models.splice import splice
from lrf_core.spec import FinetuneSpec
from lrf_core.stages.finetune import _divided, finetune
from lrf_core.training.batch_norm import normalizations
from lrf_core.training.checkpoint import open_checkpoints

SETTINGS = FinetuneSpec(
    epochs=3, batch_size=16, learning_rate=3e-3, validation_share=0.1, checkpoint_seconds=0
)
STEPS = 3 * (461 // 16)

# What the test below kills: the same training as in this process.
SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:3]
from test_finetune_resumed import SETTINGS, with_checkpoint
from tiny import tiny_data
from lrf_core.models.load import load_model
from lrf_core.stages.finetune import finetune
student, teacher = (load_model(f"{sys.argv[3]}/{name}.keras") for name in ("student", "teacher"))
finetune(student, teacher, tiny_data(), settings=with_checkpoint(SETTINGS, sys.argv[3]))
"""


def problem() -> tuple[keras.Model, keras.Model, Data]:
    """A trained teacher, a student that is not, with dropout, and data."""
    data = tiny_data()
    teacher = train_tiny(tiny_cnn(residual=False), data)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, activation="relu")(x))
    outputs = keras.layers.Dense(4, activation="softmax")(keras.layers.Dropout(0.1)(x))
    return teacher, keras.Model(inputs, outputs, name="student"), data


def with_checkpoint(settings: FinetuneSpec, folder: Path | str) -> FinetuneSpec:
    return settings.model_copy(update={"checkpoint": str(folder)})


@pytest.fixture(scope="module")
def made() -> tuple[keras.Model, keras.Model, Data]:
    return problem()


@pytest.fixture(scope="module")
def whole(made) -> tuple[keras.Model, FinetuneRecord]:  # type: ignore[no-untyped-def]
    """What comes out if nothing happens."""
    teacher, student, data = made
    return finetune(student, teacher, data, settings=SETTINGS)


def assert_as_good_as(found: FinetuneRecord, wanted: FinetuneRecord) -> None:
    assert found.steps == wanted.steps == STEPS
    assert found.best_epoch == wanted.best_epoch
    for one, other in zip(found.curve, wanted.curve, strict=True):
        # Sums run over threads in any order; what is learnt from them drifts apart a little.
        assert one.loss == pytest.approx(other.loss, rel=2e-2)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=2e-2)


def wait_for_steps(process: subprocess.Popen[bytes], folder: Path, steps: int) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "training ended before it could be killed"
        for file in folder.rglob("*.npz"):
            with np.load(file) as arrays:
                text = arrays["about"].tobytes().decode()
            if int(text.partition('"steps":')[2].partition(",")[0]) >= steps:
                return
        time.sleep(0.05)
    raise AssertionError("no checkpoint appeared")


@pytest.mark.slow
def test_training_that_is_killed_ends_as_if_nothing_had_happened(
    made, whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, student, data = made
    save_model(teacher, tmp_path / "teacher.keras")
    save_model(student, tmp_path / "student.keras")
    tests = Path(__file__).parents[1]
    arguments = [str(tests), str(tests / "stages"), str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments]) as process:
        wait_for_steps(process, tmp_path, STEPS // 3 + 5)  # in the second epoch
        process.kill()
    with caplog.at_level(logging.INFO, logger="lrf"):
        trained, record = finetune(
            student, teacher, data, settings=with_checkpoint(SETTINGS, tmp_path)
        )
    assert "fine-tuning goes on after step" in caplog.text
    assert_as_good_as(record, whole[1])
    assert accuracy(trained, data.test) == pytest.approx(accuracy(whole[0], data.test), abs=5)


def test_training_that_was_interrupted_between_batches_goes_on(
    made, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student, data = made
    settings = with_checkpoint(SETTINGS, tmp_path)

    @contextmanager
    def interrupted(description: str, total: int) -> Iterator[object]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if description == "Fine-tuning" and done >= 40:
                raise KeyboardInterrupt

        yield advance

    with monkeypatch.context() as patched:
        patched.setattr("lrf_core.training.loop.work", interrupted)
        with pytest.raises(KeyboardInterrupt):
            finetune(student, teacher, data, settings=settings)
    _, record = finetune(student, teacher, data, settings=settings)
    assert_as_good_as(record, whole[1])


def test_what_is_done_is_not_done_again(made, tmp_path: Path) -> None:
    teacher, student, data = made
    settings = with_checkpoint(SETTINGS.model_copy(update={"epochs": 1}), tmp_path)
    first, one = finetune(student, teacher, data, settings=settings)
    again, two = finetune(student, teacher, data, settings=settings)
    assert model_digest(first) == model_digest(again)
    assert one.model_copy(update={"lineage": two.lineage}) == two


def test_other_settings_start_anew(made, tmp_path: Path) -> None:
    teacher, student, data = made
    one, other = (SETTINGS.model_copy(update={"epochs": 1, "temperature": t}) for t in (1.0, 2.0))
    finetune(student, teacher, data, settings=with_checkpoint(one, tmp_path))
    _, record = finetune(student, teacher, data, settings=with_checkpoint(other, tmp_path))
    _, fresh = finetune(student, teacher, data, settings=other)
    assert record.steps == fresh.steps
    assert record.curve[0] == fresh.curve[0]


def test_a_full_disk_loses_nothing(
    made, whole, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, student, data = made
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with caplog.at_level(logging.WARNING, logger="lrf"):
            _, record = finetune(
                student, teacher, data, settings=with_checkpoint(SETTINGS, tmp_path)
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "is not kept" in caplog.text
    assert "training goes on" in caplog.text
    assert_as_good_as(record, whole[1])
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_training_that_diverges_stops_and_keeps_the_best(
    made, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, _, data = made
    settings = SETTINGS.model_copy(update={"learning_rate": 300.0, "epochs": 8, "batch_size": 4})
    with caplog.at_level(logging.WARNING, logger="lrf"):
        kept, record = finetune(teacher, teacher, data, settings=settings)
    assert record.stopped.startswith("it diverged")
    assert "it diverged" in caplog.text
    assert record.steps < 8 * (461 // 4)
    assert accuracy(kept, data.test) >= accuracy(teacher, data.test) - 3


def test_training_that_gains_nothing_any_more_stops_early(made) -> None:  # type: ignore[no-untyped-def]
    teacher, _, data = made
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-9, "epochs": 30, "patience": 2})
    same, record = finetune(
        teacher, teacher, data, settings=settings.model_copy(update={"recalibrate": False})
    )
    trained = record.curve[1:]
    best = min(trained, key=lambda point: point.validation_loss)
    assert trained[-1].epoch - best.epoch == 2 < trained[-1].epoch < 30
    assert record.stopped == "no lower held-out loss for 2 epochs"
    assert accuracy(same, data.test) == pytest.approx(accuracy(teacher, data.test), abs=1)


@pytest.mark.parametrize("wanted", [True, False])
def test_statistics_that_are_wrong_are_estimated_again(made, wanted: bool) -> None:  # type: ignore[no-untyped-def]
    teacher, _, data = made
    wrong = splice(teacher, {})
    for layer in normalizations(wrong):
        layer.momentum = 0.999  # training alone hardly moves them
        layer.moving_variance.assign(4.0 * np.asarray(layer.moving_variance))
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-9, "recalibrate": wanted})
    trained, record = finetune(wrong, teacher, data, settings=settings)
    assert record.recalibrated is wanted
    kept = normalizations(trained)[0].moving_variance
    right = normalizations(teacher)[0].moving_variance
    assert (np.asarray(kept) == pytest.approx(np.asarray(right), rel=0.3)) is wanted


@pytest.mark.parametrize("changes", [{"augmentation": "flip"}, {"feature_distillation": 0.5}])
def test_a_teacher_that_answers_in_each_step_teaches_too(made, changes) -> None:  # type: ignore[no-untyped-def]
    teacher, student, data = made
    settings = SETTINGS.model_copy(update=changes)
    trained, record = finetune(student, teacher, data, settings=settings)
    assert record.best_epoch > 0
    # Mirrored, some of these classes look like others: there is less to be learnt.
    assert accuracy(trained, data.test) > accuracy(student, data.test) + 5


def test_the_loss_and_metrics_of_the_compiled_model_are_used(made) -> None:
    teacher, student, data = made
    focal = keras.losses.CategoricalFocalCrossentropy()
    top2 = keras.metrics.TopKCategoricalAccuracy(k=2, name="top2")
    settings = SETTINGS.model_copy(update={"distillation": 0.0, "epochs": 1})
    _, record = finetune(
        student, teacher, data, settings=settings, compiled=Compiled(focal, (top2,))
    )
    assert record.loss == "categorical_focal_crossentropy"
    assert all(0 <= point.metrics["top2"] <= 1 for point in record.curve)
    assert record.curve[1].metrics["top2"] > record.curve[1].validation_accuracy / 100
    held = _divided(data.train, settings, 0)[1]
    samples, labels = held.arrays()
    answers = student.predict(samples, verbose=0)
    expected = float(focal(np.eye(4, dtype=np.float32)[labels], answers))
    assert record.curve[0].validation_loss == pytest.approx(expected, rel=1e-3)


def test_checkpoints_of_a_finished_training_hold_the_best_weights_alone(
    made, tmp_path: Path
) -> None:
    teacher, student, data = made
    settings = with_checkpoint(SETTINGS.model_copy(update={"epochs": 1}), tmp_path)
    _, record = finetune(student, teacher, data, settings=settings)
    lineage = record.lineage
    state = open_checkpoints(
        str(tmp_path), {"inputs": lineage.inputs, "settings": lineage.settings}
    ).load()
    assert state is not None
    assert state.progress.done
    assert state.learner == state.optimizer == []
    assert len(state.best) == len(student.weights)
