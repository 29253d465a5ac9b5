"""How the factorized model was trained."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lrf_core.artifacts.record import Artifact, Record


class EpochRecord(Record):
    """One point of the learning curve, on the held-out training share.

    Attributes:
        loss: mean over the epoch's batches.
        validation_loss: without the distance of feature maps.
        validation_accuracy: percent.
        metrics: of the compiled model, by name.
    """

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float
    metrics: dict[str, float] = Field(default_factory=dict)


class FinetuneRecord(Artifact):
    """How the factorized model was trained, once. Epoch 0 is the state before training.

    Attributes:
        samples: trained on; those held out left out.
        batch_size, learning_rate: as they were used; the rate is the peak of its schedule.
        loss: name of the labels' loss.
        steps: of training, in all runs together.
        seconds: of training, in all runs together.
        best_epoch: whose weights were taken.
        recalibrated: whether statistics of batch normalization were estimated again at the end.
        stopped: why training ended before its last epoch; empty if it did not.
    """

    file_name: ClassVar[str] = "finetune.json"
    before_digest: str
    after_digest: str
    samples: int
    batch_size: int = 0
    learning_rate: float = 0.0
    loss: str = ""
    steps: int
    seconds: float
    best_epoch: int
    recalibrated: bool = False
    stopped: str = ""
    curve: tuple[EpochRecord, ...]
