"""Train the factorized model once, with the original model as its teacher."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lrf_core.artifacts import EpochRecord, FinetuneRecord, Lineage
from lrf_core.data import Data, Split
from lrf_core.data.split import Array
from lrf_core.errors import DataError, ModelError
from lrf_core.models.load import is_probability, model_digest
from lrf_core.models.splice import splice
from lrf_core.models.unroll import as_graph
from lrf_core.progress import Advance, work
from lrf_core.spec import FinetuneSpec

_logger = logging.getLogger("lrf")
# Probabilities below this count as this; far below what a float32 softmax tells apart from 0.
_LEAST_PROBABILITY = 1e-12
_WARM_UP_SHARE = 0.05  # of all steps
_FEW = 16  # samples that tell probabilities from logits

# (packed targets (n, 2 * classes), answers (n, classes)) to losses (n,).
_Loss = Callable[[Any, Any], Any]


def finetune(
    model: keras.Model,
    teacher: keras.Model,
    data: Data,
    *,
    settings: FinetuneSpec = FinetuneSpec(),  # noqa: B008 (frozen)
    seed: int = 0,
) -> tuple[keras.Model, FinetuneRecord]:
    """Win back accuracy of a factorized model by distillation from the original.

    Minimises `(1 - w) * CE(labels, student) + w * T^2 * KL(teacher_T || student_T)` with Adam, a
    short warm-up and cosine decay. Part of the training data is held out, and the weights of the
    epoch with the least loss on it are returned; the weights given count as epoch 0. Neither
    model is changed. The global random seeds are set.

    Args:
        model: factorized; answers (batch, classes), as logits or as probabilities.
        teacher: the original model, with the same inputs and classes.
        data: only its training part is used.

    Returns:
        The trained copy, not compiled, and the record of its training.

    Raises:
        DataError: the training data has no labels or is too small to hold a share out.
        ModelError: the models do not fit each other, answer with NaN, or nothing is trainable.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    model, teacher = as_graph(model), as_graph(teacher)
    _check_pair(model, teacher)
    student = splice(model, {})
    training, held_out = _divided(data.train, settings, seed)
    run = _prepare(student, teacher, held_out, settings)
    try:
        curve = [run.record(epoch=0, loss=None)]
    except FloatingPointError as error:
        raise ModelError(f"before fine-tuning, {error}; decompose it again") from None
    steps, best_epoch = 0, 0
    if settings.epochs:
        targets = run.targets_of(training, "Teacher on training data")
        batches = _Batches(training, targets, settings.batch_size, seed)
        steps, best_epoch = _train(run, batches, settings, curve)
    return student, FinetuneRecord(
        lineage=Lineage(
            inputs={
                "model": model_digest(model),
                "teacher": model_digest(teacher),
                "data": data.digest,
            },
            settings={**settings.model_dump(mode="json"), "seed": seed},
        ),
        before_digest=model_digest(model),
        after_digest=model_digest(student),
        samples=training.count if steps else 0,
        steps=steps,
        seconds=time.monotonic() - started,
        best_epoch=best_epoch,
        curve=tuple(curve),
    )


@dataclass(frozen=True)
class _Run:
    """What every epoch needs.

    Attributes:
        trainer, teacher: compiled views of the student and the teacher; weights are shared, so
            the models themselves stay uncompiled.
        held_targets: packed targets of `held_out`, `(n, 2 * classes)`.
    """

    trainer: keras.Model
    teacher: keras.Model
    loss: _Loss
    held_out: Split
    held_targets: Array
    batch_size: int

    def targets_of(self, split: Split, description: str) -> Array:
        return _targets(self.teacher, split, self.batch_size, description)

    def record(self, epoch: int, loss: float | None) -> EpochRecord:
        """Judge the present weights on the held-out share; `loss` None takes the loss there.

        Raises:
            FloatingPointError: the answers are not finite.
        """
        answers = _answers(self.trainer, self.held_out, self.batch_size, _unreported)
        losses = keras.ops.convert_to_numpy(self.loss(self.held_targets, answers))
        validation_loss = float(np.mean(losses, dtype=np.float64))
        if not (np.isfinite(answers).all() and math.isfinite(validation_loss)):
            raise FloatingPointError("the factorized model answers with NaN or infinite values")
        hits = answers.argmax(axis=-1) == self.held_out.labels
        return EpochRecord(
            epoch=epoch,
            loss=validation_loss if loss is None else loss,
            validation_loss=validation_loss,
            validation_accuracy=100.0 * float(np.mean(hits)),
        )


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled batches of samples and packed targets, in a new seeded order each epoch."""

    def __init__(self, split: Split, targets: Array, batch_size: int, seed: int) -> None:
        super().__init__()
        self._split, self._targets = split, targets
        self._batch_size = min(batch_size, split.count)
        self._random = np.random.default_rng(seed)
        self._order = self._random.permutation(split.count)

    def __len__(self) -> int:
        # A last batch of a few samples would give batch normalization poor statistics; what is
        # left over is another part of the data in each epoch.
        return self._split.count // self._batch_size

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        start = index * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        return self._split.read(chosen), self._targets[chosen]

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._split.count)


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports each batch, and stops when the loss is no longer finite."""

    def __init__(self, advance: Advance) -> None:
        super().__init__()
        self._advance = advance

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._advance(1)
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True


def _train(
    run: _Run, batches: _Batches, settings: FinetuneSpec, curve: list[EpochRecord]
) -> tuple[int, int]:
    """Train, extend `curve`, and leave the best weights in place; returns steps, best epoch."""
    total = settings.epochs * len(batches)
    run.trainer.optimizer.learning_rate = _schedule(settings.learning_rate, total)
    best_weights, best = run.trainer.get_weights(), curve[0]
    with work("Fine-tuning", total) as advance:
        for epoch in range(1, settings.epochs + 1):
            history = run.trainer.fit(
                batches,
                epochs=epoch,
                initial_epoch=epoch - 1,
                shuffle=False,
                verbose=0,
                callbacks=[_Watch(advance)],
            )
            loss = float(history.history["loss"][-1])
            try:
                if not math.isfinite(loss):
                    raise FloatingPointError("the loss is NaN or infinite")
                curve.append(run.record(epoch, loss))
            except FloatingPointError as error:
                _logger.warning(
                    "fine-tuning stopped in epoch %d of %d: %s; the weights of epoch %d are kept. "
                    "Try a lower learning rate.",
                    *(epoch, settings.epochs, error, best.epoch),
                )
                break
            if curve[-1].validation_loss < best.validation_loss:
                best_weights, best = run.trainer.get_weights(), curve[-1]
    steps = int(run.trainer.optimizer.iterations)
    run.trainer.set_weights(best_weights)
    return steps, best.epoch


def _prepare(
    student: keras.Model, teacher: keras.Model, held_out: Split, settings: FinetuneSpec
) -> _Run:
    few, _ = next(held_out.batches(min(settings.batch_size, _FEW)))
    answers = keras.ops.convert_to_numpy(student(few, training=False))
    loss = _distillation(settings.distillation, settings.temperature, is_probability(answers))
    trainer = keras.Model(student.inputs, student.outputs)
    trainer.compile(keras.optimizers.Adam(), loss, jit_compile=_jit())
    view = keras.Model(teacher.inputs, teacher.outputs)
    view.compile(jit_compile=_jit())
    targets = _targets(view, held_out, settings.batch_size, "Teacher on held-out share")
    return _Run(trainer, view, loss, held_out, targets, settings.batch_size)


def _distillation(weight: float, temperature: float, probabilities: bool) -> _Loss:
    def loss(packed: Any, answers: Any) -> Any:
        classes = answers.shape[-1]
        labels, teacher = packed[:, :classes], packed[:, classes:]
        student = keras.ops.cast(answers, "float32")
        if probabilities:
            student = keras.ops.log(keras.ops.maximum(student, _LEAST_PROBABILITY))
        hard = -keras.ops.sum(labels * keras.ops.log_softmax(student), axis=-1)
        log_teacher = keras.ops.log_softmax(teacher / temperature)
        log_student = keras.ops.log_softmax(student / temperature)
        soft = keras.ops.sum(keras.ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return (1.0 - weight) * hard + weight * temperature**2 * soft

    return loss


def _targets(teacher: keras.Model, split: Split, batch_size: int, description: str) -> Array:
    """One-hot labels beside the teacher's logits, `(count, 2 * classes)` float32."""
    with work(description, split.count) as advance:
        answers = _answers(teacher, split, batch_size, advance)
    if not np.isfinite(answers).all():
        raise ModelError("the original model answers with NaN or infinite values on training data")
    if is_probability(answers):
        answers = np.log(np.maximum(answers, _LEAST_PROBABILITY))
    one_hot = np.eye(answers.shape[-1], dtype=np.float32)[split.labels]
    return np.concatenate([one_hot, answers], axis=-1)


def _answers(model: keras.Model, split: Split, batch_size: int, advance: Advance) -> Array:
    """What the model answers, `(count, classes)` float32."""
    answers = np.empty((split.count, model.outputs[0].shape[-1]), dtype=np.float32)
    for start in range(0, split.count, batch_size):
        part = answers[start : start + batch_size]
        # The last batch is filled up from the front: another size would be compiled anew.
        indices = np.arange(start, start + batch_size) % split.count
        part[:] = model.predict_on_batch(split.read(indices))[: len(part)]
        advance(len(part))
    return answers


def _unreported(steps: int) -> None:
    """For judging between epochs: two pieces of work cannot be shown at once."""


def _divided(train: Split, settings: FinetuneSpec, seed: int) -> tuple[Split, Split]:
    if train.labels is None:
        raise DataError("fine-tuning needs labels; the training data has none")
    used = train if settings.max_samples is None else train.sample(settings.max_samples, seed)
    held = max(1, round(settings.validation_share * used.count))
    if held >= used.count:
        raise DataError(
            f"{used.count} training samples are too few to hold {held} of them out; give more "
            "or raise max_samples"
        )
    order = np.random.default_rng(seed).permutation(used.count)
    return used.take(np.sort(order[held:])), used.take(np.sort(order[:held]))


def _check_pair(model: keras.Model, teacher: keras.Model) -> None:
    if len(model.outputs) != 1:
        raise ModelError(
            f"model '{model.name}' has {len(model.outputs)} outputs; fine-tuning trains models "
            "with one. Train the factorized model with your own losses, one for each output"
        )
    if model.output_shape != teacher.output_shape or model.input_shape != teacher.input_shape:
        raise ModelError(
            f"the model maps {model.input_shape} to {model.output_shape}, but its teacher maps "
            f"{teacher.input_shape} to {teacher.output_shape}; give the model it was made from"
        )
    if not model.trainable_weights:
        raise ModelError(
            f"every layer of model '{model.name}' is frozen; set trainable = True or epochs = 0"
        )


def _schedule(peak: float, steps: int) -> Any:
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / warm_up,
        decay_steps=max(1, steps - warm_up),
        warmup_target=peak,
        warmup_steps=warm_up,
    )


def _jit() -> bool | str:
    # XLA takes longer to compile a small model on a CPU than it saves; Keras' other backends
    # would run uncompiled without it.
    if keras.config.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"
