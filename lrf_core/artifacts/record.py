"""What all artifacts have: plain data, a lineage, and one file each."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrf_core.errors import ArtifactError
from lrf_core.files import limits
from lrf_core.files.atomic import write_atomically
from lrf_core.files.limits import DOCUMENT, read_document

# A model artifact is a folder with this file: a pipeline's output path has no suffix.
MODEL_FILE = "model.keras"
# The lineage of all artifacts of a run.
LINEAGE_FILE = "lineage.json"


class Record(BaseModel):
    """Base of all plain data here: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def versions() -> dict[str, str]:
    """Versions of everything that decides what an artifact holds."""
    packages = ("lrf", "keras", "tensorflow-cpu", "numpy", "scipy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # another TensorFlow build, or lrf run from a checkout
    return found


class Lineage(Record):
    """Where an artifact comes from.

    Attributes:
        inputs: name to digest (sha256, hex) of everything the stage read.
        settings: the part of the spec that the stage obeyed.
        parent: digest of the artifact this one was derived from, if any.
    """

    inputs: dict[str, str]
    settings: dict[str, Any]
    parent: str | None = None
    versions: dict[str, str] = Field(default_factory=lambda: versions())
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def key(self) -> str:
        """What decides the artifact's content: equal keys need no second computation."""
        decisive = {"inputs": self.inputs, "settings": self.settings, "versions": self.versions}
        return digest_of(decisive)


class Artifact(Record):
    """An artifact kept as one JSON file with a schema version."""

    file_name: ClassVar[str]
    schema_version: Literal[1] = 1
    lineage: Lineage

    def digest(self) -> str:
        """sha256 (hex) of the content, without the time it was made at."""
        content = self.model_dump(mode="json")
        del content["lineage"]["created"]
        return digest_of(content)

    def save(self, path: str | Path) -> Path:
        """Write to a file, or into a folder under the artifact's own name; returns the file."""
        target = self._file(Path(path))
        write_atomically(target, self.model_dump_json(indent=2).encode() + b"\n")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a file or the folder that holds it. Raises ArtifactError."""
        source = cls._file(Path(path))
        return cls._parsed(cls._content(source), source)

    @classmethod
    def _content(cls, source: Path) -> bytes:
        try:
            return read_document(source, DOCUMENT, str(source), ArtifactError)
        except OSError as error:
            raise ArtifactError(f"cannot read {cls.__name__} {source}: {error.strerror}") from None

    @classmethod
    def _parsed(cls, content: bytes, source: Path) -> Self:
        try:
            limits.parse_json(content)
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ArtifactError(
                f"{source} is no {cls.__name__} of this version: {where:.120}: {first['msg']}"
            ) from None
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"{source} is no {cls.__name__} of this version: {reason}"
            ) from None

    @classmethod
    def _file(cls, path: Path) -> Path:
        return path / cls.file_name if path.is_dir() else path


def digest_of(content: Any) -> str:
    """sha256 (hex) of JSON-serializable content, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
