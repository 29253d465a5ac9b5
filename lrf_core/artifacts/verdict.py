"""The gate's answer, check by check, with all that was measured for it.

The checks follow from the numbers and the settings in the verdict (`lrf_core.gate.checks`), so that
whoever acts on a verdict can compute them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from lrf_core.artifacts.analysis import ModelMeasures
from lrf_core.artifacts.plan import Plan
from lrf_core.artifacts.record import Artifact, Lineage, Record
from lrf_core.artifacts.seal import SEAL, fits_key, is_sealed, keyed_json, sealed_json, unsealed
from lrf_core.artifacts.training import FinetuneRecord
from lrf_core.errors import ArtifactError, PublishRefusedError
from lrf_core.files import limits
from lrf_core.files.atomic import write_atomically
from lrf_core.secrets.verdict_key import verdict_key


class Check(Record):
    """One question of the gate. `measured` None means it could not be measured: a fail."""

    name: str
    limit: str
    measured: str | None
    passed: bool
    note: str = ""


class MetricChange(Record):
    """How a metric changed from the baseline to the candidate, on the same samples.

    Attributes:
        name: e.g. "accuracy", "top-5 accuracy", "auc".
        unit: "points" for accuracies, which are in percent; "" for the metric's own unit.
        higher_is_better: whether a fall is a loss.
        drop: by how much the candidate is worse.
        interval: of `drop`, 95%.
        method: how the interval was found.
        bootstrap_interval: of an accuracy, the paired percentile bootstrap, for comparison.
        lost, won: samples that only the baseline, or only the candidate, gets right.
        mcnemar_p: p value of the hypothesis that as many are lost as won.
        bound: what the drop does not exceed, with the confidence of the gate; None without one.
    """

    name: str
    unit: str
    higher_is_better: bool
    before: float
    after: float
    drop: float
    interval: tuple[float, float]
    method: str
    bootstrap_interval: tuple[float, float] | None = None
    lost: int | None = None
    won: int | None = None
    mcnemar_p: float | None = None
    bound: float | None = None


class ClassChange(Record):
    """How the recall of one class changed.

    Attributes:
        label: its name.
        samples: of this class.
        before, after: percent of them given this class.
        drop: points lost.
        interval: of `drop`, 95%, Tango score.
        answered_before, answered_after: samples of any class that the baseline, or the candidate,
            gives this class.
    """

    label: str
    samples: int
    before: float
    after: float
    drop: float
    interval: tuple[float, float]
    answered_before: int = 0
    answered_after: int = 0


class Confusion(Record):
    """The candidate's confusion matrix; of many classes the worst, and "(others)".

    Attributes:
        labels: of rows and columns.
        counts: samples, a row for each true class, a column for each class given.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class ExportedAnswers(Record):
    """How the LiteRT file answers beside the model that it was made from.

    Attributes:
        samples: compared.
        apart: largest difference of two answers, as a share of the largest answer.
        other_class: samples that are given another class by a clear lead.
    """

    samples: int
    apart: float
    other_class: int


class Evidence(Record):
    """What the checks rest on beside the numbers that are reported.

    Attributes:
        output_shapes: of baseline and candidate, None for the batch.
        not_finite: samples on which an answer of the candidate is not finite; None if the shapes
            differ.
        exported: None if the answers could not be compared.
        reloaded_digest: of the candidate saved and loaded again; None if that fails.
        problems: name of a check to the reason why it could not be measured.
    """

    output_shapes: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    not_finite: int | None
    exported: ExportedAnswers | None
    reloaded_digest: str | None
    problems: dict[str, str]


class Verdict(Artifact):
    """The gate's answer for one candidate model.

    What could not be compared is None or empty. The lineage holds the settings that it was judged
    by: the gate, the number of candidates judged together, and the seed.

    A file has a seal, the sha256 of its content: it finds damage and careless edits, and anyone can
    compute it again. Where LRF_VERDICT_KEY_FILE names a key, a file has a keyed seal as well
    (HMAC-SHA256), which nobody can make without the key, and `load` refuses a file without it.

    Attributes:
        baseline_digest, candidate_digest: content digests of the two models.
        accuracy_drop: points of top-1 accuracy.
        drop_interval: 95% interval of `accuracy_drop`, Tango score.
        agreement: percent of samples on which both models give the same class.
        metrics: top-1 accuracy, and the metric of the gate where that is another.
        classes: of every class with samples, the largest drop first.
        calibration_error: expected calibration error of baseline and candidate, percent.
        confusion: of the candidate.
        warnings: what a user should know before trusting the numbers; they decide nothing.
        evidence: None in a verdict of schema version 1, by which nothing is published.
    """

    file_name: ClassVar[str] = "verdict.json"
    # Verdicts of version 1 can be shown.
    schema_version: Literal[1, 2] = 2  # type: ignore[assignment]
    passed: bool
    baseline_digest: str
    candidate_digest: str
    checks: tuple[Check, ...]
    baseline: ModelMeasures
    candidate: ModelMeasures
    accuracy_drop: float | None = None
    drop_interval: tuple[float, float] | None = None
    agreement: float | None = None
    metrics: tuple[MetricChange, ...] = ()
    classes: tuple[ClassChange, ...] = ()
    calibration_error: tuple[float, float] | None = None
    confusion: Confusion | None = None
    warnings: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @model_validator(mode="before")
    @classmethod
    def _unsealed(cls, content: Any) -> Any:
        """A file as `save` wrote it has a seal, which must fit."""
        sealed = isinstance(content, dict) and SEAL in content
        return unsealed(content) if sealed else content

    def save(self, path: str | Path) -> Path:
        """Write with its seals; returns the file.

        Raises:
            SpecError: LRF_VERDICT_KEY_FILE names a key that cannot be used.
        """
        key, target = verdict_key(), self._file(Path(path))
        write_atomically(target, keyed_json(self, key) if key else sealed_json(self))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a file or the folder that holds it.

        Raises:
            ArtifactError: no such file, or no verdict.
            PublishRefusedError: it was edited: its seal is gone or does not fit; or it is not
                sealed with the key that LRF_VERDICT_KEY_FILE names.
            SpecError: that key cannot be used.
        """
        key, source = verdict_key(), cls._file(Path(path))
        content = cls._content(source)
        try:
            found = limits.parse_json(content)
        except ValueError:
            return cls._parsed(content, source)  # says why
        if not isinstance(found, dict):
            raise ArtifactError(f"{source} is no {cls.__name__}: it holds no JSON object")
        if not is_sealed(found):
            raise PublishRefusedError(
                f"the verdict {source} was edited or damaged since it was written (its seal does "
                "not fit); judge the model again"
            )
        if key and (problem := fits_key(found, key)):
            raise PublishRefusedError(
                f"the verdict {source} {problem}; judge the model again where the key is"
            )
        return cls._parsed(content, source)

    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


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
