"""The model that is trained: the student's copy, the teacher beside it, and what decays."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from tiny import tiny_cnn

from lrf_core.models.splice import splice
from lrf_core.spec import FinetuneSpec
from lrf_core.training.learner import TrainerBundle, factorized_maps, make_learner
from lrf_core.training.objective import Objective, Targets, as_logits

SETTINGS = FinetuneSpec(epochs=1, batch_size=8, learning_rate=1e-3)
IMAGES = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3)).astype(np.uint8)
LABELS = np.arange(8) % 4


@pytest.fixture(scope="module")
def teacher() -> keras.Model:
    return tiny_cnn(logits=True)


@pytest.fixture(scope="module")
def student(teacher: keras.Model) -> keras.Model:
    """The teacher with a chain of two layers for conv1b."""
    layers = keras.layers
    chain = [
        layers.Conv2D(4, 1, use_bias=False, name="conv1b_in"),
        layers.Conv2D(16, 3, padding="same", name="conv1b_out"),
    ]
    return splice(teacher, {"conv1b": chain})


def targets(*, cached: bool, features: float = 0.0, probabilities: bool = False) -> Targets:
    objective = Objective(0.7, 2.0, features, probabilities)
    return Targets(objective, 4, cached, teacher_probabilities=probabilities)


def learner(
    student: keras.Model, teacher: keras.Model, wanted: Targets, **changed
) -> TrainerBundle:  # type: ignore[no-untyped-def]
    return make_learner(student, teacher, wanted, SETTINGS.model_copy(update=changed), 10)


def answers(model: keras.Model) -> np.ndarray:
    return np.asarray(model(IMAGES, training=False))


def losses_of(made: TrainerBundle, wanted: Targets, teacher: keras.Model) -> np.ndarray:
    logits = as_logits(answers(teacher)) if wanted.cached else None
    return np.asarray(wanted.loss(wanted.packed(LABELS, logits), answers(made.trainer)))


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_teacher_in_each_step_gives_the_loss_of_cached_answers(probabilities: bool) -> None:
    teacher = tiny_cnn(logits=not probabilities)
    student = tiny_cnn(logits=not probabilities, seed=1)
    cached, beside = (targets(cached=c, probabilities=probabilities) for c in (True, False))
    one = losses_of(learner(student, teacher, cached), cached, teacher)
    other = losses_of(learner(student, teacher, beside), beside, teacher)
    assert one == pytest.approx(other, rel=1e-4)


def test_maps_of_factorized_layers_are_those_with_another_kernel(student, teacher) -> None:
    assert factorized_maps(student, teacher) == ("conv1b",)
    assert factorized_maps(teacher, teacher) == ()


def test_the_distance_of_feature_maps_is_relative_and_squared(student, teacher) -> None:
    without, wanted = (targets(cached=False, features=f) for f in (0.0, 1.0))
    made = learner(student, teacher, wanted)
    distance = losses_of(made, wanted, teacher) - losses_of(made, without, teacher)
    maps = [
        np.asarray(keras.Model(m.input, m.get_layer("conv1b").output)(IMAGES, training=False))
        for m in (student, teacher)
    ]
    axes = (1, 2, 3)
    expected = ((maps[0] - maps[1]) ** 2).sum(axes) / (maps[1] ** 2).sum(axes)
    assert distance == pytest.approx(expected, rel=1e-3)


def test_neither_model_is_changed_and_the_teacher_does_not_learn(student, teacher) -> None:
    before = [np.asarray(w) for m in (student, teacher) for w in m.weights]
    wanted = targets(cached=False, features=1.0)
    made = learner(student, teacher, wanted)
    made.trainer.train_on_batch(IMAGES, wanted.packed(LABELS, None))
    after = [np.asarray(w) for m in (student, teacher) for w in m.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert teacher.trainable
    assert len(made.trainer.trainable_weights) == len(student.trainable_weights)
    assert any(
        not np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(made.model.weights, student.weights, strict=True)
    )


def test_kernels_decay_and_norms_and_biases_do_not(student, teacher) -> None:
    # Without gradients to speak of, only decay moves weights.
    made = learner(student, teacher, targets(cached=True), weight_decay=0.5)
    gradients = [keras.ops.zeros_like(w) for w in made.trainer.trainable_weights]
    before = {w.path: np.asarray(w) for w in made.model.trainable_weights}
    made.optimizer.apply(gradients, made.trainer.trainable_variables)
    moved = {
        w.path: not np.array_equal(np.asarray(w), before[w.path])
        for w in made.model.trainable_weights
    }
    assert {path.rpartition("/")[2] for path, did in moved.items() if did} == {"kernel"}
    assert all(did == path.endswith("kernel") for path, did in moved.items())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_weights_and_answers_in_float32(
    student, teacher, policy: str
) -> None:
    wanted = targets(cached=True)
    made = learner(student, teacher, wanted, precision=policy)
    assert {w.dtype for w in made.model.weights} == {"float32"}
    assert made.model.get_layer("conv0").compute_dtype == policy.removeprefix("mixed_")
    assert made.trainer.output.dtype == "float32"
    logits = as_logits(answers(teacher))
    losses = [made.trainer.train_on_batch(IMAGES, wanted.packed(LABELS, logits)) for _ in range(30)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
