from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import accuracy, tiny_cnn, tiny_data, train_tiny

from lrf_core.artifacts import FinetuneRecord
from lrf_core.console import progress
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, ModelError
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.spec import FinetuneSpec
from lrf_core.stages.finetune import finetune

SETTINGS = FinetuneSpec(epochs=2, batch_size=32, learning_rate=3e-3, validation_share=0.1)
KINDS = pytest.mark.parametrize("kind", ["softmax", "logits"])


@pytest.fixture(scope="module")
def data() -> Data:
    return tiny_data()


@pytest.fixture(scope="module")
def teachers(data: Data) -> dict[str, keras.Model]:
    return {
        kind: train_tiny(tiny_cnn(logits=kind == "logits", residual=False), data)
        for kind in ("softmax", "logits")
    }


@pytest.fixture(scope="module")
def teacher(teachers: dict[str, keras.Model]) -> keras.Model:
    return teachers["softmax"]


def damaged(model: keras.Model, noise: float = 0.8) -> keras.Model:
    """A copy with noise in its convolution kernels, as strong as `noise` times their spread."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    random = np.random.default_rng(0)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel)
            layer.kernel.assign(kernel + random.normal(0, noise * kernel.std(), kernel.shape))
    return copy


def validation_losses(record: FinetuneRecord) -> list[float]:
    return [point.validation_loss for point in record.curve]


@KINDS
def test_a_damaged_model_recovers(teachers, data: Data, kind: str) -> None:
    teacher, student = teachers[kind], damaged(teachers[kind])
    before = accuracy(student, data.test)
    trained, record = finetune(student, teacher, data, settings=SETTINGS)
    after = accuracy(trained, data.test)
    assert before < accuracy(teacher, data.test) - 15
    assert after > before + 10
    assert validation_losses(record)[record.best_epoch] == min(validation_losses(record))


def test_the_record_says_what_was_done(teacher, data: Data) -> None:
    student = damaged(teacher)
    trained, record = finetune(student, teacher, data, settings=SETTINGS, seed=5)
    assert [point.epoch for point in record.curve] == [0, 1, 2]
    assert record.samples == 461  # 512 without the tenth held out
    assert record.steps == 2 * (461 // 32)
    assert record.seconds > 0
    assert record.before_digest == model_digest(student)
    assert record.after_digest == model_digest(trained)
    assert record.lineage.inputs == {
        "model": model_digest(student),
        "teacher": model_digest(teacher),
        "data": data.digest,
    }
    settings = SETTINGS.decisive() | {"patience": 3, "seed": 5, "loss": "crossentropy"}
    assert record.lineage.settings == settings
    assert FinetuneRecord.model_validate_json(record.model_dump_json()) == record


def test_the_models_given_are_left_as_they_were(teacher, data: Data) -> None:
    student = damaged(teacher)
    before = model_digest(student), model_digest(teacher)
    trained, _ = finetune(student, teacher, data, settings=SETTINGS)
    assert (model_digest(student), model_digest(teacher)) == before
    assert trained is not student
    assert not any(model.compiled for model in (student, teacher, trained))


def test_equal_seeds_give_equal_results(teacher, data: Data) -> None:
    student = damaged(teacher)
    (first, one), (again, two), (other, _) = (
        finetune(student, teacher, data, settings=SETTINGS, seed=seed) for seed in (1, 1, 2)
    )
    assert one.curve == two.curve
    assert model_digest(first) == model_digest(again) != model_digest(other)


def test_no_epochs_leave_the_model_as_it_is(teacher, data: Data) -> None:
    student = damaged(teacher)
    settings = SETTINGS.model_copy(update={"epochs": 0})
    same, record = finetune(student, teacher, data, settings=settings)
    assert model_digest(same) == model_digest(student) == record.after_digest
    assert (len(record.curve), record.steps, record.samples, record.best_epoch) == (1, 0, 0, 0)


def test_training_that_only_harms_is_thrown_away(teacher, data: Data) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 5.0})
    same, record = finetune(teacher, teacher, data, settings=settings)
    assert min(validation_losses(record)[1:]) > validation_losses(record)[0]
    assert record.best_epoch == 0
    assert model_digest(same) == model_digest(teacher)


def test_a_loss_that_is_not_finite_stops_training(teachers, data: Data, caplog) -> None:
    student, teacher = damaged(teachers["logits"]), teachers["logits"]
    settings = SETTINGS.model_copy(update={"learning_rate": 1e38, "epochs": 5})
    with caplog.at_level(logging.WARNING, logger="lrf"):
        same, record = finetune(student, teacher, data, settings=settings)
    assert "stopped in epoch 1 of 5" in caplog.text
    assert "Try a lower finetune.learning_rate" in caplog.text
    assert 0 < record.steps < 14
    assert model_digest(same) == model_digest(student)
    assert FinetuneRecord.model_validate_json(record.model_dump_json()) == record


@KINDS
@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 2.0), (1.0, 1.0), (0.3, 4.0)])
def test_the_loss_is_that_of_hinton(
    teachers, data: Data, kind: str, weight: float, temperature: float
) -> None:
    teacher, student = teachers[kind], damaged(teachers[kind], noise=1.0)
    samples, labels = data.train.take([3]).arrays()
    # One sample many times over, so that any held-out share has its loss.
    copies = Split.of(np.repeat(samples, 20, axis=0), np.repeat(labels, 20))
    settings = SETTINGS.model_copy(
        update={"epochs": 0, "distillation": weight, "temperature": temperature}
    )
    _, record = finetune(
        student, teacher, dataclasses.replace(data, train=copies), settings=settings
    )

    def probabilities(model: keras.Model, t: float) -> np.ndarray:
        answers = model.predict(samples.astype("float32"), verbose=0)[0].astype(np.float64)
        logits = np.log(answers) if kind == "softmax" else answers
        powers = np.exp((logits - logits.max()) / t)
        return powers / powers.sum()

    p, q = probabilities(teacher, temperature), probabilities(student, temperature)
    soft = temperature**2 * np.sum(p * np.log(p / q))
    hard = -np.log(probabilities(student, 1.0)[labels[0]])
    expected = (1 - weight) * hard + weight * soft
    assert expected > 1e-3
    assert record.curve[0].validation_loss == pytest.approx(expected, rel=1e-3)


def test_pure_distillation_needs_no_true_labels(teacher, data: Data) -> None:
    samples, labels = data.train.arrays()
    wrong = dataclasses.replace(data, train=Split.of(samples, (labels + 1) % 4))
    student = damaged(teacher)
    settings = SETTINGS.model_copy(update={"distillation": 1.0})
    trained, _ = finetune(student, teacher, wrong, settings=settings)
    assert accuracy(trained, data.test) > accuracy(student, data.test) + 10


def test_without_distillation_the_teacher_does_not_matter(teacher, data: Data) -> None:
    student = damaged(teacher)
    settings = SETTINGS.model_copy(update={"distillation": 0.0})
    (first, _), (second, _) = (
        finetune(student, answers, data, settings=settings) for answers in (teacher, tiny_cnn())
    )
    assert model_digest(first) == model_digest(second)
    assert accuracy(first, data.test) > accuracy(student, data.test) + 10


def test_a_student_with_logits_learns_from_a_teacher_with_probabilities(
    teachers, data: Data
) -> None:
    student = damaged(teachers["logits"])
    trained, record = finetune(student, teachers["softmax"], data, settings=SETTINGS)
    assert record.best_epoch > 0
    assert accuracy(trained, data.test) > accuracy(student, data.test) + 10


def test_the_result_is_saved_and_loaded_without_optimizer(
    teacher, data: Data, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1})
    trained, record = finetune(damaged(teacher), teacher, data, settings=settings)
    path = save_model(trained, tmp_path)
    loaded = load_model(path)
    assert model_digest(loaded) == record.after_digest
    assert not keras.saving.load_model(path, compile=True).compiled
    x = data.test.arrays()[0]
    assert np.array_equal(trained(x, training=False), loaded(x, training=False))


def test_a_sequential_model_is_trained(data: Data) -> None:
    def made(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                layers.Rescaling(1 / 255),
                layers.Conv2D(8, 3, activation="relu"),
                layers.Dropout(0.1),
                layers.GlobalAveragePooling2D(),
                layers.Dense(4, activation="softmax"),
            ]
        )

    student = made(0)
    trained, record = finetune(student, made(1), data, settings=SETTINGS)
    assert type(trained) is keras.Sequential
    assert record.best_epoch > 0
    assert model_digest(trained) != model_digest(student)


def test_at_most_max_samples_are_used(teacher, data: Data) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 1, "max_samples": 100})
    _, record = finetune(damaged(teacher), teacher, data, settings=settings)
    assert (record.samples, record.steps) == (90, 90 // 32)


def test_fewer_samples_than_a_batch_are_one_batch(teacher, data: Data) -> None:
    settings = SETTINGS.model_copy(update={"max_samples": 20})
    _, record = finetune(damaged(teacher), teacher, data, settings=settings)
    assert (record.samples, record.steps) == (18, 2)


def test_each_batch_is_reported_one_piece_of_work_at_a_time(teacher, data: Data) -> None:
    done: dict[str, int] = {}
    open_work: list[str] = []

    @contextmanager
    def display(description: str, total: int) -> Iterator[progress.Advance]:
        assert not open_work
        open_work.append(description)
        done[description] = -total
        yield lambda steps: done.update({description: done[description] + steps})
        open_work.pop()

    token = progress._display.set(display)
    try:
        finetune(damaged(teacher), teacher, data, settings=SETTINGS)
    finally:
        progress._display.reset(token)
    assert list(done) == [
        "Teacher on held-out share",
        "Teacher on training data",
        "Fine-tuning",
        "Batch normalization",
    ]
    assert set(done.values()) == {0}


def test_training_data_without_labels_are_refused(teacher, data: Data) -> None:
    bare = dataclasses.replace(data, train=Split.of(data.train.arrays()[0]))
    with pytest.raises(DataError, match="needs labels"):
        finetune(damaged(teacher), teacher, bare, settings=SETTINGS)


def test_a_single_sample_is_refused(teacher, data: Data) -> None:
    settings = SETTINGS.model_copy(update={"max_samples": 1})
    with pytest.raises(DataError, match="too few to hold 1 of them out"):
        finetune(damaged(teacher), teacher, data, settings=settings)


def test_a_teacher_of_other_classes_is_refused(teacher, data: Data) -> None:
    with pytest.raises(ModelError, match="give the model it was made from"):
        finetune(damaged(teacher), tiny_cnn(classes=5), data, settings=SETTINGS)


def test_a_model_that_is_frozen_is_refused(teacher, data: Data) -> None:
    frozen = damaged(teacher)
    frozen.trainable = False
    with pytest.raises(ModelError, match="frozen"):
        finetune(frozen, teacher, data, settings=SETTINGS)


@pytest.mark.parametrize("which", ["student", "teacher"])
def test_answers_that_are_not_finite_are_refused(teacher, data: Data, which: str) -> None:
    broken = damaged(teacher)
    broken.get_layer("answer").bias.assign([np.nan] * 4)
    pair = (broken, teacher) if which == "student" else (damaged(teacher), broken)
    named = "factorized" if which == "student" else "original"
    with pytest.raises(ModelError, match=f"the {named} model answers with NaN"):
        finetune(*pair, data, settings=SETTINGS)


ON_JAX = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny import accuracy, tiny_cnn, tiny_data, train_tiny
import keras
assert keras.config.backend() == "jax"
from lrf_core.spec import FinetuneSpec
from lrf_core.stages.finetune import finetune
data = tiny_data()
teacher = train_tiny(tiny_cnn(residual=False), data)
student = tiny_cnn(residual=False, seed=1)
settings = FinetuneSpec(epochs=6, batch_size=32, learning_rate=1e-2)
trained, record = finetune(student, teacher, data, settings=settings)
assert len(record.curve) == 7 and record.best_epoch > 0, record.curve
assert accuracy(trained, data.test) > accuracy(student, data.test) + 30, record.curve
"""


def test_it_runs_on_the_jax_backend() -> None:
    pytest.importorskip("jax", reason="Keras' JAX backend needs jax")
    subprocess.run(
        [sys.executable, "-c", ON_JAX, str(Path(__file__).parents[1])],
        check=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
