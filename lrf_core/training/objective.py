"""What fine-tuning minimises: the labels' loss, the distance from the original's answers, and,
where asked for, that from its feature maps.

    (1 - w) * hard(labels, student) + w * T^2 * KL(teacher_T || student_T) + f * features
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lrf_core.data.split import Array
from lrf_core.models.load import is_probability

# Probabilities below this count as this; far below what a float32 softmax tells apart from 0.
_LEAST_PROBABILITY = 1e-12

# (class ids (n,), answers (n, classes)) to losses (n,); tensors of the backend.
HardLoss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Objective:
    """Losses of answers, sample by sample.

    Attributes:
        distillation: weight `w` of the teacher's answers.
        temperature: `T`.
        features: weight `f` of the distance of feature maps.
        probabilities: whether the student answers with probabilities, rather than logits.
        hard: the labels' loss; None for cross-entropy.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
        Romero et al., "FitNets: Hints for Thin Deep Nets" (2015), for the feature maps.
    """

    distillation: float
    temperature: float
    features: float
    probabilities: bool
    hard: HardLoss | None = None

    def of_answers(self, labels: Any, teacher: Any, student: Any) -> Any:
        """Losses `(n,)` without the feature maps.

        Args:
            labels: class ids `(n,)`.
            teacher: its logits `(n, classes)`.
            student: its answers `(n, classes)`.
        """
        answers = keras.ops.cast(student, "float32")
        logits = logits_of(answers) if self.probabilities else answers
        losses = 0.0
        if self.distillation < 1.0:
            hard = (self.hard or _cross_entropy)(labels, answers if self.hard else logits)
            losses += (1.0 - self.distillation) * hard
        if self.distillation > 0.0:
            soft = _divergence(teacher / self.temperature, logits / self.temperature)
            losses += self.distillation * self.temperature**2 * soft
        return losses

    def of_guessing(self, labels: Array, teacher: Array) -> float:
        """The mean loss of a student that answers all classes alike."""
        answers = np.zeros_like(teacher)
        if self.probabilities:
            answers += 1.0 / teacher.shape[-1]
        return mean(self.of_answers(labels, teacher, answers))


@dataclass(frozen=True)
class Targets:
    """What the loss of a batch compares with, as one array for Keras.

    With `cached`, the targets are class ids and the teacher's logits side by side, and the model
    answers as the student does. Without, the targets are class ids alone, and the model's answers
    are the student's, the teacher's logits and the distance of feature maps side by side.

    Attributes:
        classes: how many.
        teacher_probabilities: whether the teacher answers with these, rather than logits.
    """

    objective: Objective
    classes: int
    cached: bool
    teacher_probabilities: bool

    def packed(self, labels: Array, teacher: Array | None) -> Array:
        """Targets `(n, 1)` or `(n, 1 + classes)` float32.

        Args:
            labels: class ids `(n,)`.
            teacher: its logits `(n, classes)`, where they are cached and needed.
        """
        ids = np.asarray(labels, np.float32)[:, None]  # exact: classes are fewer than 2^24
        return ids if teacher is None else np.concatenate([ids, teacher], axis=-1)

    def loss(self, targets: Any, answers: Any) -> Any:
        """Losses `(n,)` of a batch, for `keras.Model.compile`."""
        labels, count = keras.ops.cast(targets[:, 0], "int32"), self.classes
        if self.cached:
            return self.objective.of_answers(labels, targets[:, 1:], answers)
        student, teacher = answers[:, :count], answers[:, count : 2 * count]
        losses = self.objective.of_answers(labels, teacher, student)
        return losses + self.objective.features * answers[:, 2 * count]


def logits_of(probabilities: Any) -> Any:
    """Logits `(n, classes)` that a softmax turns into these probabilities."""
    return keras.ops.log(keras.ops.maximum(probabilities, _LEAST_PROBABILITY))


def as_logits(answers: Array) -> Array:
    """Answers `(n, classes)` as float32 logits, whichever of the two they are."""
    answers = np.asarray(answers, np.float32)
    return np.log(np.maximum(answers, _LEAST_PROBABILITY)) if is_probability(answers) else answers


def map_distance(student: Any, teacher: Any) -> Any:
    """Squared distance of feature maps `(n, ...)` over the teacher's squared norm, `(n,)`."""
    axes = tuple(range(1, len(teacher.shape)))
    student, teacher = (keras.ops.cast(maps, "float32") for maps in (student, teacher))
    norm = keras.ops.sum(keras.ops.square(teacher), axis=axes)
    distance = keras.ops.sum(keras.ops.square(student - teacher), axis=axes)
    return distance / (norm + 1e-6)


def mean(losses: Any) -> float:
    """Of losses `(n,)` of any backend."""
    return float(np.mean(keras.ops.convert_to_numpy(losses), dtype=np.float64))


def _cross_entropy(labels: Any, logits: Any) -> Any:
    return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def _divergence(teacher: Any, student: Any) -> Any:
    log_teacher, log_student = keras.ops.log_softmax(teacher), keras.ops.log_softmax(student)
    return keras.ops.sum(keras.ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
