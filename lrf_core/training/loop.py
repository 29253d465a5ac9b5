"""Train epoch by epoch, keep the best weights, stop when it goes wrong, go on after a kill."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from lrf_core.artifacts import EpochRecord
from lrf_core.console.progress import Advance, work
from lrf_core.spec import FinetuneSpec
from lrf_core.training.batches import Batches
from lrf_core.training.checkpoint import Checkpoints, TrainingState, assign, values_of
from lrf_core.training.learner import TrainerBundle

_logger = logging.getLogger("lrf")
# Batches whose mean loss says whether training diverges.
_ENOUGH_BATCHES = 50
# A model that starts near guessing may get a little worse before it gets better.
_MUCH_WORSE = 2.0
_ADVICE = "Try a lower finetune.learning_rate"

# (epoch, mean loss of its batches) to its record, by the weights that the learner has then; raises
# FloatingPointError where these answer with NaN.
Judge = Callable[[int, float], EpochRecord]


@dataclass(frozen=True)
class TrainingLimits:
    """When to stop.

    Attributes:
        guessing: the loss of answering all classes alike.
        patience: epochs without a lower held-out loss.
    """

    guessing: float
    patience: int

    def diverged(self, loss: float, start: float) -> bool:
        """Whether a model is much worse than guessing, and than it was before training."""
        return loss > _MUCH_WORSE * max(self.guessing, start)


def train(
    learner: TrainerBundle,
    batches: Batches,
    state: TrainingState,
    settings: FinetuneSpec,
    *,
    judge: Judge,
    limits: TrainingLimits,
    checkpoints: Checkpoints,
) -> TrainingState:
    """Train from `state` on to the last epoch, or to where training has to stop.

    Args:
        state: epoch 0, or what a checkpoint held.
        settings: resolved, see `schedule.resolved`.

    Returns:
        The state at the end; `best` are the weights to use. The learner's are the last ones.
    """
    with batches.workers.distributed():
        # Otherwise the first step would begin with fresh momenta, and `fit` would build loss and
        # optimizer by the first batch of its data: on JAX, that one is not trained on then, and
        # others come twice.
        learner.trainer._symbolic_build(data_batch=batches.epoch(1)[0])
    if state.learner:
        assign(learner.model.variables, state.learner)
        assign(learner.optimizer.variables, state.optimizer)
    session = _Session(learner, batches, state, settings, limits, checkpoints)
    # Steps of an earlier run left out: they would make the time left look short.
    left = settings.epochs * batches.per_epoch - state.progress.steps
    with work("Fine-tuning", left) as advance:
        while not state.progress.done:
            session.run_epoch(judge, advance)
    state.learner, state.optimizer = [], []
    checkpoints.save(state)
    return state


class _Session:
    """Training in this process; moves `state` on."""

    def __init__(
        self,
        learner: TrainerBundle,
        batches: Batches,
        state: TrainingState,
        settings: FinetuneSpec,
        limits: TrainingLimits,
        checkpoints: Checkpoints,
    ) -> None:
        self.learner, self.batches, self.state = learner, batches, state
        self.settings, self.limits, self.checkpoints = settings, limits, checkpoints
        self._started = time.monotonic() - state.progress.seconds

    def run_epoch(self, judge: Judge, advance: Advance) -> None:
        """Train what is left of the epoch, judge it, and decide how to go on."""
        epoch, start = self.state.progress.epoch, self.state.progress.batch
        watch = _Watch(self, advance)
        if start < self.batches.per_epoch:
            with self.batches.workers.distributed():
                self.learner.trainer.fit(
                    self.batches.epoch(epoch, start),
                    epochs=epoch,
                    initial_epoch=epoch - 1,
                    shuffle=False,
                    verbose=0,
                    callbacks=[watch],
                )
        why = watch.stopped or self._judged(judge, epoch)
        waited = _waited(self.state.progress.curve)
        if why:
            _logger.warning(
                "fine-tuning stopped in epoch %d of %d: %s; the weights of epoch %d are used",
                *(epoch, self.settings.epochs, why, self.state.progress.best_epoch),
            )
        elif epoch < self.settings.epochs and waited >= self.limits.patience:
            why = f"no lower held-out loss for {waited} epochs"
            _logger.info("fine-tuning stopped after epoch %d: %s", epoch, why)
        if why or epoch == self.settings.epochs:
            self.move(stopped=why, done=True)
        else:
            self.move(epoch=epoch + 1, batch=0, loss_sum=0.0)
            self.keep()

    def move(self, **changes: Any) -> None:
        """Change the progress."""
        seconds = time.monotonic() - self._started
        changed = {**changes, "seconds": seconds}
        self.state.progress = self.state.progress.model_copy(update=changed)

    def keep(self) -> None:
        """Write a checkpoint."""
        self.state.learner = values_of(self.learner.model.variables)
        self.state.optimizer = values_of(self.learner.optimizer.variables)
        self.checkpoints.save(self.state)

    def _judged(self, judge: Judge, epoch: int) -> str:
        """Record the epoch; returns why training has to stop, or nothing."""
        before = self.state.progress
        try:
            record = judge(epoch, before.loss_sum / self.batches.per_epoch)
        except FloatingPointError as error:
            return str(error)
        self.move(curve=(*before.curve, record))
        if record.validation_loss < before.curve[before.best_epoch].validation_loss:
            self.move(best_epoch=epoch)
            self.state.best = values_of(self.learner.model.weights)
        if self.limits.diverged(record.validation_loss, before.curve[0].validation_loss):
            return f"it diverged: the held-out loss is twice that of guessing. {_ADVICE}"
        return ""


def _waited(curve: Sequence[EpochRecord]) -> int:
    """Epochs since the least held-out loss of training.

    The state before does not count: a high learning rate makes a good start worse at first.
    """
    trained = curve[1:]
    best = min(trained, key=lambda point: point.validation_loss, default=curve[0])
    return curve[-1].epoch - best.epoch


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Counts batches, keeps the state now and then, and stops where the loss goes wrong."""

    def __init__(self, session: _Session, advance: Advance) -> None:
        super().__init__()
        self.stopped = ""
        self._session, self._start, self._advance = session, session.state.progress, advance
        self._kept = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        session, start, done = self._session, self._start, batch + 1
        mean = float((logs or {})["loss"])  # of the batches of this call of fit
        self._advance(1)
        session.move(
            batch=start.batch + done,
            steps=start.steps + done,
            loss_sum=start.loss_sum + mean * done,
        )
        if not math.isfinite(mean):
            self.stopped = f"the loss is NaN or infinite. {_ADVICE}"
        elif done >= _ENOUGH_BATCHES and session.limits.diverged(
            mean, start.curve[0].validation_loss
        ):
            self.stopped = f"it diverged: the loss is twice that of guessing. {_ADVICE}"
        due = time.monotonic() - self._kept >= session.settings.checkpoint_seconds
        if self.stopped or due:
            # On JAX, asking for the model writes the state of training back to its variables.
            self.model.stop_training = bool(self.stopped)
        if due and not self.stopped:
            session.keep()
            self._kept = time.monotonic()
