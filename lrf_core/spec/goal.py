"""What the plan must reach, and how one candidate per layer is chosen for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lrf_core.spec.section import Section, Share

Minimized = Literal["error", "sensitivity", "params", "macs", "bytes", "latency"]

# Plans that are fine-tuned where a predicted accuracy drop decides, unless the spec says how many:
# the plan predicted to keep it, a gentler one and a smaller one.
PLANS_BY_DROP = 3

_LOSSES = ("error", "sensitivity")

_COSTS = {
    "params_reduction",
    "macs_reduction",
    "bytes_reduction",
    "latency_reduction",
    "max_params",
    "max_macs",
    "max_weight_bytes",
    "max_latency_ms",
}


class Goal(Section):
    """What the plan must reach: every limit that is set. With nothing set, `max_accuracy_drop` is 1
    point.

    Parameters, multiply-adds and bytes are of the whole model, latencies summed over the explored
    layers.
    """

    max_accuracy_drop: float | None = Field(
        None,
        ge=0.0,
        le=100.0,
        description="Accuracy that may be lost after fine-tuning, points. The "
        "gate demands it with its confidence.",
    )
    params_reduction: Share | None = Field(
        None, description="Share of the whole model's parameters to remove, at least."
    )
    macs_reduction: Share | None = Field(
        None, description="Share of the whole model's multiply-adds to remove, at least."
    )
    bytes_reduction: Share | None = Field(
        None, description="Share of the whole model's weight bytes to remove, at least."
    )
    latency_reduction: Share | None = Field(
        None, description="Share of the explored layers' latency to remove, at least."
    )
    max_params: int | None = Field(None, ge=1, description="Parameters of the whole model.")
    max_macs: int | None = Field(None, ge=1, description="Multiply-adds of one sample.")
    max_weight_bytes: int | None = Field(None, ge=1, description="Bytes of all weights.")
    max_latency_ms: float | None = Field(
        None, gt=0.0, description="Summed latency of the explored layers, milliseconds a sample."
    )
    max_predicted_loss: float | None = Field(
        None, ge=0.0, description="Summed sensitivity, the predicted loss (nats), no fine-tuning."
    )
    similarity: float | None = Field(
        None, ge=0.0, le=1.0, description="Least similarity of every layer's feature map."
    )

    def limits_costs(self) -> bool:
        """Whether it limits anything but losses."""
        return self.model_dump(include=_COSTS) != dict.fromkeys(_COSTS)

    def limits_losses(self) -> bool:
        """Whether it limits how much worse the model may get, by any measure."""
        losses = (self.max_accuracy_drop, self.max_predicted_loss, self.similarity)
        return any(limit is not None for limit in losses)

    def minimized(self, loss: Minimized) -> Minimized:
        """What to minimise if that is not set: `loss`, or the parameters if nothing else would
        make the model smaller."""
        asks_for_accuracy = self.max_accuracy_drop is not None
        if self.limits_losses() and not self.limits_costs() and not asks_for_accuracy:
            return "params"
        return loss

    def drop_decides(self, minimized: Minimized) -> bool:
        """Whether a predicted accuracy drop decides the plan: no cost is limited, or one is to be
        minimised. Beside other limits on costs these decide, and the gate judges the drop."""
        by_costs = self.limits_costs() and minimized in _LOSSES
        return self.max_accuracy_drop is not None and not by_costs


class DecomposeSpec(Section):
    """How one candidate per layer is chosen."""

    policy: Literal["knapsack", "threshold", "vbmf"] = Field(
        "knapsack",
        description="knapsack: exactly the best plan. threshold: the same least similarity for "
        "every layer. vbmf: Tucker and SVD ranks by variational Bayes, whatever the goal; limits "
        "are only checked.",
    )
    minimize: Minimized | None = Field(
        None,
        description="What the knapsack minimises over the layers: relative feature-map error (best "
        "before fine-tuning), or sensitivity, the predicted loss (best as the model stands), or "
        "params, macs, bytes or latency where the goal limits the loss. Default: params if the "
        "goal limits the loss alone; else error if fine-tuning follows, else sensitivity.",
    )
    refit: bool = Field(
        True,
        description="Fit each layer again to what it sees behind compressed layers; takes a pass "
        "over the calibration samples per layer.",
    )
    expected_recovery: float = Field(
        0.75,
        ge=0.0,
        lt=1.0,
        description="Share of the drop that fine-tuning is expected to win back; used only to "
        "choose a plan for max_accuracy_drop. The gate judges what really came out.",
    )
    plans: int | None = Field(
        None,
        ge=1,
        le=16,
        description="How many plans to build; each is fine-tuned once, and the smallest that "
        "passes the gate is published. Number 0 is the plan for the goal. Where an accuracy drop "
        "decides, the others lie around it, predicted to lose a quarter to four times of what is "
        "allowed; else they are gentler, or smaller where costs are limited. Default: 3 where an "
        "accuracy drop decides, else 1.",
    )

    def plans_for(self, goal: Goal) -> int:
        """How many plans to build: `plans`, or the default for this goal and policy."""
        if self.plans is not None:
            return self.plans
        minimized = self.minimize or goal.minimized("sensitivity")
        by_drop = goal.drop_decides(minimized) and self.policy != "vbmf"
        return PLANS_BY_DROP if by_drop else 1
