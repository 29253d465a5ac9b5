"""The verdicts on the candidates of all plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lrf_core.artifacts.plan import Plan
from lrf_core.artifacts.record import Artifact, Lineage
from lrf_core.artifacts.training import FinetuneRecord
from lrf_core.artifacts.verdict import Verdict


@dataclass(frozen=True)
class PlanOutcome:
    """A plan, the training of the model that was built by it, and the verdict on that model."""

    plan: Plan
    finetune: FinetuneRecord
    verdict: Verdict


class Verdicts(Artifact):
    """The verdicts on the candidates of all plans.

    Attributes:
        picked: index of the verdict on the candidate that is published, or shown if none passed.
        verdicts: by the number of the plan.
    """

    file_name: ClassVar[str] = "verdicts.json"
    picked: int
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], picked: int) -> Verdicts:
        """With digests of the verdicts as lineage."""
        inputs = {f"verdict {place}": each.digest() for place, each in enumerate(verdicts)}
        parent = verdicts[picked].digest()
        lineage = Lineage(inputs=inputs, settings={}, parent=parent)
        return cls(lineage=lineage, picked=picked, verdicts=tuple(verdicts))
