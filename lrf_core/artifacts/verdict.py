"""The gate's answer, check by check, with all that was measured for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from lrf_core import strict_json
from lrf_core.artifacts.analysis import ModelMeasures
from lrf_core.artifacts.record import Artifact, Record
from lrf_core.artifacts.seal import SEAL, is_sealed, sealed_json, unsealed
from lrf_core.atomic import write_atomically
from lrf_core.errors import PublishRefusedError


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


class ClassChange(Record):
    """How the recall of one class changed.

    Attributes:
        label: its name.
        samples: of this class.
        before, after: percent of them given this class.
        drop: points lost.
        interval: of `drop`, 95%, Tango score.
    """

    label: str
    samples: int
    before: float
    after: float
    drop: float
    interval: tuple[float, float]


class Confusion(Record):
    """The candidate's confusion matrix; of many classes the worst, and "(others)".

    Attributes:
        labels: of rows and columns.
        counts: samples, a row for each true class, a column for each class given.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Verdict(Artifact):
    """The gate's answer for one candidate model.

    What could not be compared is None or empty.

    Attributes:
        baseline_digest, candidate_digest: content digests of the two models.
        accuracy_drop: points of top-1 accuracy.
        drop_interval: 95% interval of `accuracy_drop`, Tango score.
        agreement: percent of samples on which both models give the same class.
        metrics: top-1 accuracy, and the metric of the gate where that is another.
        classes: of every class with samples, the largest drop first.
        calibration_error: expected calibration error of baseline and candidate, percent.
        confusion: of the candidate.
        warnings: what a person should know before trusting the numbers; they decide nothing.
    """

    file_name: ClassVar[str] = "verdict.json"
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

    @model_validator(mode="before")
    @classmethod
    def _unsealed(cls, content: Any) -> Any:
        """A file as `save` wrote it has a seal, which must fit."""
        sealed = isinstance(content, dict) and SEAL in content
        return unsealed(content) if sealed else content

    def save(self, path: str | Path) -> Path:
        """Write with a seal, by which `load` finds a file that was edited; returns the file."""
        target = self._file(Path(path))
        write_atomically(target, sealed_json(self))
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a file or the folder that holds it.

        Raises:
            ArtifactError: no such file, or no verdict.
            PublishRefusedError: it was edited: its seal is gone or does not fit.
        """
        source, content = cls._read(path)
        try:
            found = strict_json.parsed(content)
        except ValueError:
            return cls._parsed(source, content)  # says why
        if isinstance(found, dict) and not is_sealed(found):
            raise PublishRefusedError(
                f"the verdict {source} was edited or damaged since it was written (its seal does "
                "not fit); judge the model again"
            )
        return cls._parsed(source, content)

    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)
