"""The folder a run leaves behind: the same files, whether from one process or from a pipeline.

With one plan, all files lie in the folder itself. With several, those of plan i lie in `plans/<i>/`
under the same names, and those of the selected plan are copied to the folder itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lrf_core.artifacts import (
    LINEAGE_FILE,
    MODEL_FILE,
    Analysis,
    DesignSpace,
    FinetuneRecord,
    Override,
    Plan,
    Verdict,
)
from lrf_core.errors import ArtifactError
from lrf_core.exploration.shards import Shard
from lrf_core.files.atomic import write_atomically_with

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
        """The fine-tuned model, which the gate judges."""
        return self.folder / "candidate" / MODEL_FILE

    @property
    def verdict(self) -> Path:
        return self.folder / Verdict.file_name

    @property
    def override(self) -> Path:
        """The decision of a user to publish although checks failed, if there is one."""
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

    def of_plan(self, number: int, count: int) -> Outputs:
        """Where the files of one of `count` plans lie."""
        return Outputs(self._plans / str(number)) if count > 1 else self

    def of_plans(self) -> tuple[Outputs, ...]:
        """Where the files of each plan lie that was built, in the order of their numbers."""
        several = [
            Outputs(folder)
            for folder in self._plans.glob("*")
            if folder.name.isdecimal() and (folder / Plan.file_name).is_file()
        ]
        return tuple(sorted(several, key=lambda each: int(each.folder.name))) or (self,)

    def clear_plans(self, keep: Sequence[int] = ()) -> None:
        """Remove the folders of plans that an earlier run left, except for some numbers.

        Raises:
            ArtifactError: a folder cannot be removed.
        """
        try:
            for folder in self._plans.glob("*"):
                if folder.name.isdecimal() and int(folder.name) not in keep:
                    shutil.rmtree(folder)
        except OSError as error:
            raise ArtifactError(f"cannot clear {self._plans}: {error.strerror or error}") from None

    def copy_from(self, plan: Outputs) -> None:
        """Copy the files of one plan to the folder itself, unless they lie there."""
        if plan == self:
            return
        names = ("plan", "factorized", "finetune", "candidate", "verdict")
        plan.copy_to({name: getattr(self, name) for name in names})

    def copy_to(self, targets: Mapping[str, Path]) -> None:
        """Copy files to places outside, each whole or not at all.

        Args:
            targets: by the names that they have here, such as "plan".
        """
        for name, target in targets.items():
            write_atomically_with(target, partial(shutil.copyfile, getattr(self, name)))

    @property
    def _plans(self) -> Path:
        return self.folder / "plans"

    def attachments(self) -> dict[str, Path]:
        """See `attachments`."""
        return attachments(
            analysis=self.analysis,
            design_space=self.design_space,
            plan=self.plan,
            finetune=self.finetune,
            verdict=self.verdict,
            report=self.report,
            lineage=self.lineage,
        )


def attachments(
    *,
    analysis: Path,
    design_space: Path,
    plan: Path,
    finetune: Path,
    verdict: Path,
    report: Path,
    lineage: Path,
) -> dict[str, Path]:
    """All that a release carries beside the model: name in the release to file here."""
    return {
        Analysis.file_name: analysis,
        DesignSpace.file_name: design_space,
        Plan.file_name: plan,
        FinetuneRecord.file_name: finetune,
        Verdict.file_name: verdict,
        REPORT_FILE: report,
        LINEAGE_FILE: lineage,
    }
