"""How the factorized model is trained, once."""

from __future__ import annotations

from pydantic import Field

from lrf_core.spec.section import Section


class FinetuneSpec(Section):
    """How the factorized model is trained, once."""

    epochs: int = Field(3, ge=0, description="0 skips fine-tuning.")
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0.0, description="Peak of the cosine schedule (Adam).")
    distillation: float = Field(
        0.9, ge=0.0, le=1.0, description="Weight of the original's answers against the labels."
    )
    temperature: float = Field(4.0, gt=0.0)
    validation_share: float = Field(
        0.05, gt=0.0, le=0.5, description="Of the training data, held out to pick the best weights."
    )
    max_samples: int | None = Field(None, ge=1, description="Use at most this many samples.")
