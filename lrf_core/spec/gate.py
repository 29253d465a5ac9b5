"""What a model must keep to be published."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from lrf_core.named_function import PATTERN
from lrf_core.spec.section import Section, Share

_ACCURACY = r"accuracy|top_?[1-9]\d*"


class GateSpec(Section):
    """Limits a model must keep to be published. A limit that is not set is reported, not judged;
    without one for the metric, nothing passes. Only the drop is judged with a confidence, all other
    limits as measured."""

    metric: str = Field(
        "accuracy",
        pattern=rf"^({_ACCURACY}|[A-Za-z]\w*|{PATTERN})$",
        description="What the drop is of: accuracy; top_5 or any other top_k; a metric of Keras by "
        "the name that compile() takes, given probabilities; or module:function, of class ids (n,) "
        "and the model's answers (n, classes), that returns one number or one for each sample.",
    )
    metric_direction: Literal["higher", "lower"] | None = Field(
        None,
        description="Which values of the metric are better. Keras tells for most of its own (of "
        "losses the lower); needed for module:function.",
    )
    max_accuracy_drop: float | None = Field(
        None,
        ge=0.0,
        le=100.0,
        description="Points, of top-k accuracy where the metric is that; default: the goal's, else "
        "1 point unless the metric is no accuracy.",
    )
    max_metric_drop: float | None = Field(
        None,
        ge=0.0,
        description="By how much a metric that is no accuracy may get worse (fall where higher is "
        "better, rise where lower is), in its own unit.",
    )
    confidence: float | None = Field(
        0.95,
        ge=0.5,
        lt=1.0,
        description="The drop must be within its limit with this one-sided confidence, divided "
        "among the candidates of one run (Bonferroni); with too few samples to tell, it fails. "
        "null: as measured on these samples, however few.",
    )
    max_worst_class_drop: float | None = Field(
        None,
        ge=0.0,
        le=100.0,
        description="Points of recall (of top-1) that any one class may lose.",
    )
    max_collapsed_classes: int | None = Field(
        0,
        ge=0,
        description="Classes that the original gives to 5 test samples or more, and the candidate "
        "to none; null: not judged.",
    )
    min_agreement: float | None = Field(
        None, ge=0.0, le=100.0, description="Percent of samples given the original's class."
    )
    max_ece_drift: float | None = Field(
        None,
        ge=0.0,
        le=100.0,
        description="Points by which the expected calibration error may grow.",
    )
    min_params_reduction: Share | None = Field(None, description="Default: the goal's.")
    min_macs_reduction: Share | None = Field(None, description="Default: the goal's.")
    max_weight_bytes: int | None = Field(None, ge=1, description="Default: the goal's.")
    max_keras_latency_ratio: float | None = Field(
        None, gt=0.0, description="Median after over median before, timed in turns."
    )
    max_litert_latency_ratio: float | None = Field(
        None, gt=0.0, description="The same in LiteRT, on one thread."
    )
    max_samples: int | None = Field(None, ge=1, description="Judge on at most this many samples.")
    latency_repeats: int = Field(30, ge=3, description="Timed runs of each model.")

    def judges_accuracy(self) -> bool:
        """Whether the metric is top-1 or top-k accuracy, whose drops are points."""
        return re.fullmatch(_ACCURACY, self.metric) is not None

    @model_validator(mode="after")
    def _metric_has_its_own_limits(self) -> Self:
        if self.judges_accuracy() and self.max_metric_drop is not None:
            raise ValueError(f"the limit of {self.metric} is max_accuracy_drop, in points")
        if self.judges_accuracy() and self.metric_direction == "lower":
            raise ValueError(f"{self.metric} is better when higher")
        return self
