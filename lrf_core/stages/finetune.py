"""Train the factorized model once, with the original model as its teacher."""

from __future__ import annotations

import logging

import keras
import numpy as np

from lrf_core.artifacts import EpochRecord, FinetuneRecord, Lineage
from lrf_core.data import Data, Split
from lrf_core.errors import DataError, ModelError
from lrf_core.models.compiled import Compiled, compiled_of
from lrf_core.models.load import is_probability, model_digest
from lrf_core.models.splice import splice
from lrf_core.models.unroll import to_functional
from lrf_core.spec import FinetuneSpec
from lrf_core.training.augment import augmentation
from lrf_core.training.batch_norm import normalizations, recalibrate
from lrf_core.training.batches import Batches
from lrf_core.training.checkpoint import (
    Checkpoints,
    Progress,
    TrainingState,
    open_checkpoints,
    values_of,
)
from lrf_core.training.distribute import Workers, finetune_by_workers
from lrf_core.training.held_out import Validator, teacher_answers
from lrf_core.training.learner import make_learner
from lrf_core.training.loop import TrainingLimits, train
from lrf_core.training.objective import Objective, Targets, as_logits
from lrf_core.training.schedule import resolved

_logger = logging.getLogger("lrf")
_FEW = 16  # samples that tell probabilities from logits
# The teacher answers once for each sample, where its answers take no more memory than this.
_CACHE_BYTES = 2**30


def finetune(
    model: keras.Model,
    teacher: keras.Model,
    data: Data,
    *,
    settings: FinetuneSpec = FinetuneSpec(),  # noqa: B008 (frozen)
    seed: int = 0,
    compiled: Compiled | None = None,
    workers: Workers = Workers(),  # noqa: B008 (frozen)
) -> tuple[keras.Model, FinetuneRecord]:
    """Win back accuracy of a factorized model by distillation from the original.

    Minimises `(1 - w) * CE(labels, student) + w * T^2 * KL(teacher_T || student_T)`, and the
    distance of feature maps where asked for, with AdamW, a short warm-up and cosine decay. Part of
    the training data is held out, and the weights of the epoch with the least loss on it are
    returned; the weights given count as epoch 0. Training stops where it diverges. Neither model
    is changed. The global random seeds are set.

    With `settings.checkpoint` the state is kept there now and then: killed and called again, it
    goes on from there, and ends after the same number of steps.

    With `settings.workers` above 1, that many other processes train on Keras' JAX backend, each on
    its part of every batch: here, or on a cluster as `settings.trainjob` says. They read the data
    again from its source.

    Args:
        model: factorized; answers (batch, classes), as logits or as probabilities.
        teacher: the original model, with the same inputs and classes.
        data: only its training part is used.
        settings: epochs, distillation, checkpoints and so on.
        seed: of everything random.
        compiled: whose loss takes the place of cross-entropy, and whose metrics are recorded;
            default: what the teacher is compiled with.
        workers: set in such a process: all of them call this alike, and get the same.

    Returns:
        The trained copy, not compiled, and the record of its training.

    Raises:
        DataError: the training data has no labels or is too small to hold a share out, or the
            augmentation fails.
        ModelError: the models do not fit each other, answer with NaN, or nothing is trainable.
        StorageError: the place for checkpoints cannot be used.
        SpecError: several workers are asked for without jax, or more than a batch has samples.
        WorkerError: a worker ended before its time.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2.
    """
    compiled = compiled_of(teacher) if compiled is None else compiled
    if settings.workers > workers.count:
        return finetune_by_workers(
            model, teacher, data, settings=settings, seed=seed, compiled=compiled
        )
    model, teacher = to_functional(model), to_functional(teacher)
    _check_pair(model, teacher)
    training, held_out = _divided(data.train, settings, seed)
    settings = resolved(settings, training.count, _values(training), workers.count)
    lineage = Lineage(
        inputs={
            "model": model_digest(model),
            "teacher": model_digest(teacher),
            "data": data.digest,
        },
        settings={**settings.decisive(), "seed": seed, "loss": compiled.name or "crossentropy"},
    )
    checkpoints = open_checkpoints(
        settings.checkpoint,
        {"inputs": lineage.inputs, "settings": lineage.settings},
        writes=workers.is_leader,
    )
    keras.utils.set_random_seed(seed)
    student = splice(model, {})
    objective = _objective(student, held_out, settings, compiled)
    judged = Validator.of(
        student,
        teacher,
        held_out,
        objective,
        compiled,
        settings.batch_size or held_out.count,
        workers,
    )
    kept = checkpoints.load()
    if kept and not kept.progress.done:
        _logger.info("fine-tuning goes on after step %d", kept.progress.steps)
    state = kept or _untrained(judged, settings)
    if not state.progress.done:
        state = _train(judged, teacher, training, settings, seed, state, checkpoints, workers)
    student.set_weights(state.best)
    progress = state.progress
    # A model that is handed back as it came is not touched.
    recalibrated = bool(progress.best_epoch and _recalibrated(judged, training, settings, seed))
    return student, FinetuneRecord(
        lineage=lineage,
        before_digest=lineage.inputs["model"],
        after_digest=model_digest(student),
        samples=training.count if progress.steps else 0,
        batch_size=settings.batch_size or 0,
        learning_rate=settings.learning_rate or 0.0,
        loss=compiled.name or "crossentropy",
        steps=progress.steps,
        seconds=progress.seconds,
        best_epoch=progress.best_epoch,
        recalibrated=recalibrated,
        stopped=progress.stopped,
        curve=progress.curve,
    )


def _objective(
    student: keras.Model, samples: Split, settings: FinetuneSpec, compiled: Compiled
) -> Objective:
    few, _ = next(samples.batches(_FEW))
    answers = keras.ops.convert_to_numpy(student(few, training=False))
    return Objective(
        distillation=settings.distillation,
        temperature=settings.temperature,
        features=settings.feature_distillation,
        probabilities=is_probability(answers),
        hard=compiled.losses if compiled.loss is not None else None,
    )


def _untrained(judged: Validator, settings: FinetuneSpec) -> TrainingState:
    """Epoch 0. Raises ModelError: the student answers NaN."""
    try:
        first = judged.record(0, None)
    except FloatingPointError as error:
        raise ModelError(f"before fine-tuning, {error}; decompose it again") from None
    progress = Progress(curve=(first,), done=not settings.epochs)
    return TrainingState(progress, best=values_of(judged.student.weights))


def _train(
    judged: Validator,
    teacher: keras.Model,
    training: Split,
    settings: FinetuneSpec,
    seed: int,
    state: TrainingState,
    checkpoints: Checkpoints,
    workers: Workers,
) -> TrainingState:
    """Train from a state on, to the end."""
    targets = Targets(
        objective=judged.objective,
        classes=judged.teacher_logits.shape[-1],
        cached=_teacher_can_be_cached(training, judged.teacher_logits.shape[-1], settings),
        teacher_probabilities=judged.teacher_probabilities,
    )
    logits = None
    if targets.cached and settings.distillation:
        size = judged.batch_size
        logits = as_logits(teacher_answers(teacher, training, size, "Teacher on training data"))
    batches = Batches(
        samples=training,
        targets=targets.packed(np.asarray(training.labels), logits),
        batch_size=judged.batch_size,
        seed=seed,
        augment=augmentation(settings.augmentation) if settings.augmentation else None,
        workers=workers,
    )
    with workers.distributed():
        steps = settings.epochs * batches.per_epoch
        learner = make_learner(judged.student, teacher, targets, settings, steps)

    def judge(epoch: int, loss: float) -> EpochRecord:
        judged.student.set_weights(values_of(learner.model.weights))
        return judged.record(epoch, loss)

    limits = TrainingLimits(judged.guessing(), settings.patience or settings.epochs)
    return train(
        learner,
        batches,
        state,
        settings,
        judge=judge,
        limits=limits,
        checkpoints=checkpoints,
    )


def _teacher_can_be_cached(training: Split, classes: int, settings: FinetuneSpec) -> bool:
    """Whether the teacher need not be called in each step."""
    if settings.feature_distillation:
        return False
    if not settings.distillation:
        return True
    return not settings.augmentation and 4 * training.count * classes <= _CACHE_BYTES


def _recalibrated(judged: Validator, training: Split, settings: FinetuneSpec, seed: int) -> bool:
    """Estimate batch normalization's statistics again, where that does no harm; whether it did."""
    student = judged.student
    if not (settings.recalibrate and normalizations(student)):
        return False
    before, kept = judged.record(0, None).validation_loss, values_of(student.weights)
    recalibrate(student, training, judged.batch_size, seed)
    try:
        if judged.record(0, None).validation_loss <= before:
            return True
    except FloatingPointError as error:
        _logger.warning("new statistics of batch normalization are not used: %s", error)
    student.set_weights(kept)
    return False


def _values(split: Split) -> int:
    """Numbers in one sample."""
    return sum(int(part[0].size) for part in keras.tree.flatten(split.read(np.array([0]))))


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
