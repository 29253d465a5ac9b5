"""The folder a run leaves behind: the same files, whether from one process or from a pipeline.

Where the spec asks for one plan, all lies in the folder itself. Where it asks for several, what
belongs to plan i lies in `plans/<i>/` under the same names, and the plan that was picked is copied
to the folder itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lrf_core.artifacts import (
    MODEL_FILE,
    Analysis,
    Artifact,
    DesignSpace,
    DropCalibration,
    FinetuneRecord,
    Override,
    Plan,
    Release,
    Verdict,
)
from lrf_core.errors import ArtifactError
from lrf_core.exploration.shards import Shard
from lrf_core.files.atomic import write_atomically, write_atomically_with

LINEAGE_FILE = "lineage.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Outputs:
    """Where each artifact of a run lies."""

    folder: Path

    @property
    def analysis(self) -> Path:
        return self.folder / Analysis.file_name

    @property
    def latency(self) -> Path:
        """The table of a run that measures latencies itself."""
        return self.folder / "latency.json"

    @property
    def design_space(self) -> Path:
        return self.folder / DesignSpace.file_name

    def design_space_of(self, shard: Shard | None) -> Path:
        """Of one shard, or of the whole model for None."""
        if shard is None:
            return self.design_space
        return self.folder / f"design_space-{shard.number}-of-{shard.count}.parquet"

    @property
    def plan(self) -> Path:
        return self.folder / Plan.file_name

    @property
    def factorized(self) -> Path:
        """The model before fine-tuning."""
        return self.folder / "factorized" / MODEL_FILE

    @property
    def finetune(self) -> Path:
        return self.folder / FinetuneRecord.file_name

    @property
    def candidate(self) -> Path:
        """The model that was judged."""
        return self.folder / "candidate" / MODEL_FILE

    @property
    def verdict(self) -> Path:
        return self.folder / Verdict.file_name

    @property
    def override(self) -> Path:
        """A person's decision on the verdict, where there is one."""
        return self.folder / Override.file_name

    @property
    def report(self) -> Path:
        return self.folder / REPORT_FILE

    @property
    def frontier(self) -> Path:
        """The drawing of `lrf frontier`."""
        return self.folder / "frontier.svg"

    @property
    def lineage(self) -> Path:
        return self.folder / LINEAGE_FILE

    @property
    def steps(self) -> Path:
        """Which stages `lrf compress` has finished here."""
        return self.folder / ".steps.json"

    @property
    def release(self) -> Path:
        """The store that is used when the spec names none."""
        return self.folder / "release"

    def of_plan(self, number: int, asked: int) -> Outputs:
        """Where the files of one plan lie, of as many as were asked for."""
        return Outputs(self._plans / str(number)) if asked > 1 else self

    def of_plans(self) -> tuple[Outputs, ...]:
        """Where the files of all plans lie that were decomposed by, in the order of numbers."""
        several = [
            Outputs(folder)
            for folder in self._plans.glob("*")
            if folder.name.isdecimal() and (folder / Plan.file_name).is_file()
        ]
        return tuple(sorted(several, key=lambda each: int(each.folder.name))) or (self,)

    def clear_plans(self, keep: Sequence[int] = ()) -> None:
        """Remove the folders of plans that an earlier run left, but for some numbers.

        Raises:
            ArtifactError: a folder cannot be removed.
        """
        try:
            for folder in self._plans.glob("*"):
                if folder.name.isdecimal() and int(folder.name) not in keep:
                    shutil.rmtree(folder)
        except OSError as error:
            raise ArtifactError(f"cannot clear {self._plans}: {error.strerror or error}") from None

    def show(self, picked: Outputs) -> None:
        """Copy the files of one plan to the folder itself, unless they lie there."""
        if picked == self:
            return
        for name in ("plan", "factorized", "finetune", "candidate", "verdict"):
            source, target = getattr(picked, name), getattr(self, name)
            write_atomically_with(target, partial(shutil.copyfile, source))

    @property
    def _plans(self) -> Path:
        return self.folder / "plans"

    def attachments(self) -> dict[str, Path]:
        """What a release carries beside the model: name in the release to file here."""
        files = (
            self.analysis,
            self.design_space,
            self.plan,
            self.finetune,
            self.verdict,
            self.report,
            self.lineage,
        )
        return {file.name: file for file in files}


@dataclass(frozen=True)
class Outcome:
    """What one plan came to."""

    plan: Plan
    finetune: FinetuneRecord
    verdict: Verdict


@dataclass(frozen=True)
class Run:
    """What a whole run came to.

    Attributes:
        outcomes: of all plans, by their numbers.
        picked: index of the outcome that the run is about.
        release: None when the gate said no.
    """

    outputs: Outputs
    analysis: Analysis
    outcomes: tuple[Outcome, ...]
    picked: int
    release: Release | None

    @property
    def plan(self) -> Plan:
        return self.outcomes[self.picked].plan

    @property
    def finetune(self) -> FinetuneRecord:
        return self.outcomes[self.picked].finetune

    @property
    def verdict(self) -> Verdict:
        return self.outcomes[self.picked].verdict


def write_lineage(path: Path, *artifacts: Artifact | DesignSpace) -> Path:
    """Write the lineage of a run's artifacts, in the order they were made, as one JSON file.

    The verdict's entry keeps the accuracy drop that its plan was chosen by beside what came out.
    """
    plan = next((artifact for artifact in artifacts if isinstance(artifact, Plan)), None)
    content: list[dict[str, Any]] = []
    for artifact in artifacts:
        entry = {"artifact": type(artifact).__name__, **artifact.lineage.model_dump(mode="json")}
        if isinstance(artifact, Verdict) and plan is not None and plan.calibration is not None:
            entry["prediction"] = _prediction(plan, plan.calibration, artifact)
        content.append(entry)
    write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
    return path


def _prediction(plan: Plan, calibration: DropCalibration, verdict: Verdict) -> dict[str, Any]:
    """Accuracy drops in points: before fine-tuning on training samples, after it on test samples.

    `measured_drop` is null where the gate could not compare the answers.
    """
    return {
        "predicted_drop_before_finetuning": plan.predicted_drop,
        "measured_drop_before_finetuning": calibration.measured_drop,
        "standard_error": calibration.standard_error,
        "expected_drop": calibration.expected_drop,
        "measured_drop": verdict.accuracy_drop,
    }
