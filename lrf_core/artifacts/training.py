"""How the factorized model was trained."""

from __future__ import annotations

from typing import ClassVar

from lrf_core.artifacts.record import Artifact, Record


class EpochRecord(Record):
    """One point of the learning curve; accuracies in percent, on the held-out training share."""

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float


class FinetuneRecord(Artifact):
    """How the factorized model was trained, once. Epoch 0 is the state before training."""

    file_name: ClassVar[str] = "finetune.json"
    before_digest: str
    after_digest: str
    samples: int
    steps: int
    seconds: float
    best_epoch: int
    curve: tuple[EpochRecord, ...]
