"""What workers are given, and what they leave: one folder that all of them see.

job.json  factorized/model.keras  teacher/model.keras     written before they start
candidate/model.keras  finetune.json                      written by the worker that leads
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import keras

from lrf_core.artifacts import FinetuneRecord, digest_of, versions
from lrf_core.artifacts.record import Record
from lrf_core.data import Data
from lrf_core.errors import ArtifactError
from lrf_core.files.atomic import write_atomically
from lrf_core.models.compiled import Compiled
from lrf_core.models.load import load_model, model_digest, save_model
from lrf_core.spec import FinetuneSpec

_FILE = "job.json"


class Job(Record):
    """One fine-tuning, for processes that share nothing but files with the one that asks for it.

    Attributes:
        model, teacher, data: digests of what is trained, and by what.
        source: of the data, as `open_data` takes it.
        settings: with the number of workers.
        seed: of the data's division, and of training.
        compiled: loss and metrics, see `Compiled.config`.
    """

    schema_version: Literal[1] = 1
    model: str
    teacher: str
    data: str
    source: str
    settings: FinetuneSpec
    seed: int
    compiled: dict[str, Any] | None

    @classmethod
    def of(
        cls,
        model: keras.Model,
        teacher: keras.Model,
        data: Data,
        settings: FinetuneSpec,
        seed: int,
        compiled: Compiled,
    ) -> Self:
        here = Path(data.source)
        return cls(
            model=model_digest(model),
            teacher=model_digest(teacher),
            data=data.digest,
            source=str(here.absolute()) if here.exists() else data.source,
            settings=settings,
            seed=seed,
            compiled=compiled.config(),
        )

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it: two jobs with one digest come to the same."""
        return digest_of([self.model_dump(mode="json"), versions()])

    def write(self, folder: Path, model: keras.Model, teacher: keras.Model) -> None:
        """Lay out the folder. Raises ArtifactError: it cannot be written."""
        save_model(model, folder / "factorized")
        save_model(teacher, folder / "teacher")
        # Last: a folder with this file is whole.
        write_atomically(folder / _FILE, self.model_dump_json().encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises ArtifactError."""
        try:
            return cls.model_validate_json((folder / _FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"no job for workers in {folder}: {' '.join(str(error).split())[:120]}; mount it "
                "where the step that wrote it has it"
            ) from None


def models_of(folder: Path) -> tuple[keras.Model, keras.Model]:
    """The factorized model and its teacher."""
    # What a job reads was written by lrf for it.
    return (
        load_model(folder / "factorized", sandbox=False),
        load_model(folder / "teacher", sandbox=False),
    )


def write_result(folder: Path, model: keras.Model, record: FinetuneRecord) -> None:
    """Raises ArtifactError: the folder cannot be written."""
    save_model(model, folder / "candidate")
    record.save(folder / FinetuneRecord.file_name)


def read_result(folder: Path) -> tuple[keras.Model, FinetuneRecord]:
    """What the worker that leads has left.

    Raises:
        ArtifactError: nothing, or another model than its record is of.
    """
    record = FinetuneRecord.load(folder / FinetuneRecord.file_name)
    model = load_model(folder / "candidate", sandbox=False)
    if model_digest(model) != record.after_digest:
        raise ArtifactError(f"the model in {folder} is not the one that its record is of")
    return model, record
