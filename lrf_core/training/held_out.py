"""The student, judged by samples that it is not trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np

from lrf_core.artifacts import EpochRecord
from lrf_core.console.progress import Advance, work
from lrf_core.data import Split
from lrf_core.data.split import Array
from lrf_core.errors import ModelError
from lrf_core.models.compiled import Compiled
from lrf_core.models.load import is_probability
from lrf_core.training.distribute import Workers
from lrf_core.training.learner import jit
from lrf_core.training.objective import Objective, as_logits, mean


@dataclass(frozen=True)
class Validator:
    """Held-out samples, what the teacher answers to them, and what the student is judged by.

    Attributes:
        student: whose weights are judged; it stays uncompiled.
        view: of the student, with the same weights, compiled to predict.
        teacher_logits: `(count, classes)`.
        teacher_probabilities: whether the teacher answers with these, rather than logits.
        workers: that judge alike, by the answers of the one that leads.
    """

    student: keras.Model
    view: keras.Model
    samples: Split
    teacher_logits: Array
    teacher_probabilities: bool
    objective: Objective
    compiled: Compiled
    batch_size: int
    workers: Workers

    @classmethod
    def of(
        cls,
        student: keras.Model,
        teacher: keras.Model,
        samples: Split,
        objective: Objective,
        compiled: Compiled,
        batch_size: int,
        workers: Workers,
    ) -> Validator:
        """Ask the teacher. Raises ModelError: it answers NaN."""
        answers = teacher_answers(teacher, samples, batch_size, "Teacher on held-out share")
        answers = workers.broadcast(answers)
        return cls(
            student=student,
            view=_predicting(student),
            samples=samples,
            teacher_logits=as_logits(answers),
            teacher_probabilities=is_probability(answers),
            objective=objective,
            compiled=compiled,
            batch_size=batch_size,
            workers=workers,
        )

    def record(self, epoch: int, loss: float | None) -> EpochRecord:
        """Judge the student's present weights; `loss` None takes the held-out loss.

        Raises:
            FloatingPointError: the answers are not finite.
        """
        answers = _answers(self.view, self.samples, self.batch_size, _unreported)
        answers = self.workers.broadcast(answers)
        labels = self.labels
        held_loss = mean(self.objective.of_answers(labels, self.teacher_logits, answers))
        if not (np.isfinite(answers).all() and math.isfinite(held_loss)):
            raise FloatingPointError("the factorized model answers with NaN or infinite values")
        return EpochRecord(
            epoch=epoch,
            loss=held_loss if loss is None else loss,
            validation_loss=held_loss,
            validation_accuracy=100.0 * float(np.mean(answers.argmax(axis=-1) == labels)),
            metrics=self.compiled.measured(labels, answers),
        )

    def guessing(self) -> float:
        """The loss of answering all classes alike."""
        return self.objective.of_guessing(self.labels, self.teacher_logits)

    @property
    def labels(self) -> Array:
        """Class ids `(count,)`."""
        return np.asarray(self.samples.labels)


def teacher_answers(teacher: keras.Model, split: Split, batch_size: int, description: str) -> Array:
    """What the teacher answers, `(count, classes)` float32. Raises ModelError: NaN."""
    with work(description, split.count) as advance:
        answers = _answers(_predicting(teacher), split, batch_size, advance)
    if not np.isfinite(answers).all():
        raise ModelError("the original model answers with NaN or infinite values on training data")
    return answers


def _predicting(model: keras.Model) -> keras.Model:
    view = keras.Model(model.inputs, model.outputs)
    view.compile(jit_compile=jit())
    return view


def _answers(model: keras.Model, split: Split, batch_size: int, advance: Advance) -> Array:
    """What the model answers, `(count, classes)` float32."""
    answers = np.empty((split.count, model.outputs[0].shape[-1]), dtype=np.float32)
    for start in range(0, split.count, batch_size):
        part = answers[start : start + batch_size]
        # The last batch is filled up from the front: another size would be compiled again.
        indices = np.arange(start, start + batch_size) % split.count
        part[:] = model.predict_on_batch(split.read(indices))[: len(part)]
        advance(len(part))
    return answers


def _unreported(steps: int) -> None:
    """For judging between epochs: two pieces of work cannot be shown at once."""
