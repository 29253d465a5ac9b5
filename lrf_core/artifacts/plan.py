"""One choice per layer, and what it rests on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lrf_core.artifacts.analysis import Cost
from lrf_core.artifacts.design_space import Candidate
from lrf_core.artifacts.record import Artifact, Record


class Choice(Record):
    """What happens to one layer: a candidate, or nothing when `candidate` is None."""

    layer: str
    before: Cost
    candidate: Candidate | None = None

    def after(self) -> Cost:
        return self.candidate.cost if self.candidate else self.before


class TriedPlan(Record):
    """A plan that was measured before fine-tuning: its summed loss, the accuracy points it loses,
    and the standard error of these."""

    loss: float
    drop: float
    standard_error: float = Field(gt=0.0)


class DropCalibration(Record):
    """What the predicted accuracy drop of a plan rests on.

    Attributes:
        loss: the quantity that the curve goes by, summed over the layers.
        points: all plans that were measured, as they would be built, in that order.
        samples: training samples that they were measured on.
        labelled: False if the original's own classes stood for labels.
        measured_drop, standard_error: of the model that was built, before fine-tuning, on the same
            samples.
        expected_drop: points, after fine-tuning has won back what it is expected to.
    """

    loss: str
    points: tuple[TriedPlan, ...]
    samples: int
    labelled: bool = True
    measured_drop: float
    standard_error: float
    expected_drop: float


class Plan(Artifact):
    """One choice per explored layer, with predicted totals.

    Attributes:
        before, after: of the whole model; `after` is exact, not an estimate.
        minimized: the quantity that the policy minimised; empty if it minimises none.
        limits: what the whole model may have at most, by the name of the quantity.
        totals_before, totals_after: of every quantity that is known, of the whole model; of
            `latency` (milliseconds) and losses of the explored layers.
        predicted_loss: summed sensitivity of the choices.
        predicted_drop: accuracy points before fine-tuning, by the curve from summed loss to drop;
            None unless an accuracy drop decided.
        calibration: of that curve.
        number: which of the plans for the goal this is; 0 is the one that the goal asks for.
        asked: how many plans were asked for.
    """

    file_name: ClassVar[str] = "plan.json"
    policy: str
    model_digest: str
    factorized_digest: str
    choices: tuple[Choice, ...]
    before: Cost
    after: Cost
    minimized: str = ""
    limits: dict[str, float] = Field(default_factory=dict)
    totals_before: dict[str, float] = Field(default_factory=dict)
    totals_after: dict[str, float] = Field(default_factory=dict)
    predicted_loss: float
    predicted_drop: float | None = None
    calibration: DropCalibration | None = None
    number: int = Field(0, ge=0)
    asked: int = Field(1, ge=1)

    def replaced(self) -> tuple[Candidate, ...]:
        return tuple(choice.candidate for choice in self.choices if choice.candidate)
