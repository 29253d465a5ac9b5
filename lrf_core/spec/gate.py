"""What a model must keep to be published."""

from __future__ import annotations

from pydantic import Field

from lrf_core.spec.section import Section, Share


class GateSpec(Section):
    """Limits a model must keep to be published. A limit that is not set is reported, not judged."""

    max_accuracy_drop: float | None = Field(
        None, ge=0.0, le=100.0, description="Points; default: the goal's, else 1 point."
    )
    min_params_reduction: Share | None = Field(None, description="Default: the goal's.")
    min_macs_reduction: Share | None = Field(None, description="Default: the goal's.")
    max_weight_bytes: int | None = Field(None, ge=1, description="Default: the goal's.")
    max_keras_latency_ratio: float | None = Field(None, gt=0.0)
    max_litert_latency_ratio: float | None = Field(None, gt=0.0)
    max_samples: int | None = Field(None, ge=1, description="Judge on at most this many samples.")
    latency_repeats: int = Field(30, ge=3)
