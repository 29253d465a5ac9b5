"""What passes from stage to stage. Each artifact is plain data and one file a person can open."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lrf_core.atomic import write_atomically, write_atomically_with
from lrf_core.errors import ArtifactError

# A model artifact is a folder with this file: a pipeline's output path has no suffix.
MODEL_FILE = "model.keras"


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
        try:
            return cls.model_validate_json(source.read_bytes())
        except OSError as error:
            raise ArtifactError(f"cannot read {cls.__name__} {source}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ArtifactError(
                f"{source} is no {cls.__name__} of this version: {where}: {first['msg']}"
            ) from None

    @classmethod
    def _file(cls, path: Path) -> Path:
        return path / cls.file_name if path.is_dir() else path


class Cost(Record):
    """Parameters and multiply-adds (one sample), of a layer or a whole model."""

    params: int
    macs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(params=self.params + other.params, macs=self.macs + other.macs)


class Call(Record):
    """Sizes of one call of a layer, without batch and channels; none for a plain dense layer."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class LayerRecord(Record):
    """One layer with weights.

    Attributes:
        name: path through nested models, parts joined by "/".
        kind: the Keras class, e.g. "Conv2D".
        kernel_shape: as Keras stores it; empty where there is no single kernel.
        calls: one entry for every place where the layer is used.
        fixed_sizes: whether the model takes samples of one size only.
        bias: whether the layer adds a bias to its kernel's products.
        share: of the model's parameters.
        itemsize: bytes of one parameter as it is stored.
        methods: the factorizations that apply; empty when not eligible.
        reason: why the layer stays as it is; empty when eligible.
    """

    name: str
    kind: str
    kernel_shape: tuple[int, ...]
    calls: tuple[Call, ...]
    fixed_sizes: bool = True
    bias: bool = False
    cost: Cost
    share: float
    itemsize: int = 4
    methods: tuple[str, ...] = ()
    reason: str = ""


class ModelMeasures(Record):
    """What is measured of a model, before and after.

    Attributes:
        accuracy: percent of samples; None when the data has no labels.
        weight_bytes: bytes of all weights as stored.
        keras_latency_ms: median for one sample in Keras; None if not measured.
        litert_latency_ms: median for one sample in LiteRT, one thread; None if not measured.
    """

    cost: Cost
    weight_bytes: int
    accuracy: float | None = None
    samples: int = 0
    keras_latency_ms: float | None = None
    litert_latency_ms: float | None = None


class Analysis(Artifact):
    """The inventory of a model, and its measures before compression."""

    file_name: ClassVar[str] = "analysis.json"
    model_name: str
    model_digest: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    layers: tuple[LayerRecord, ...]
    baseline: ModelMeasures
    shards: tuple[tuple[str, ...], ...]

    def eligible(self) -> tuple[LayerRecord, ...]:
        return tuple(layer for layer in self.layers if layer.methods)


class Candidate(Record):
    """One way to replace one layer.

    Attributes:
        form: how the method is laid out, where it has several ways ("per axis").
        ranks: in the order the method documents.
        error: squared error of the layer's output over its squared norm (0 is exact).
        similarity: of the sampled feature maps, by the metric the design space names (1 is equal).
        sensitivity: predicted increase of the loss per sample, tr(F D^T S D) / 2 (nats); the
            plain output error where the model gives no gradient.
        has_gradient: whether it does, at this layer.
        note: what a reader should know about the factors ("regularized: ..."); mostly empty.
        latency_ms: of one sample on one thread, between measured ranks; None where not measured.
    """

    layer: str
    method: str
    form: str = ""
    ranks: tuple[int, ...]
    cost: Cost
    error: float
    similarity: float
    sensitivity: float
    has_gradient: bool = True
    note: str = ""
    latency_ms: float | None = None

    @property
    def technique(self) -> str:
        """Method and form, for people: `cp (per axis)`."""
        return f"{self.method} ({self.form})" if self.form else self.method


_COLUMNS = pa.schema(
    [
        ("layer", pa.string()),
        ("method", pa.string()),
        ("form", pa.string()),
        ("ranks", pa.list_(pa.int32())),
        ("params", pa.int64()),
        ("macs", pa.int64()),
        ("error", pa.float64()),
        ("similarity", pa.float64()),
        ("sensitivity", pa.float64()),
        ("has_gradient", pa.bool_()),
        ("note", pa.string()),
        ("latency_ms", pa.float64()),
    ]
)


class DesignSpace(Record):
    """Every scored candidate of the layers explored; one Parquet table.

    Attributes:
        model_digest: of the model explored.
        calibration_digest: of the samples used.
        similarity: the metric in the candidates' `similarity`.
        layers: the layers explored, also those without any candidate, in the order of the model.
        eligible: all layers that may be explored, in the order of the model; empty where that is
            not known. A shard has not all of them in `layers`.
        candidates: in the order of the layers; see `exploration.merge.in_order`.
        latency_ms: of each layer as it is, one sample on one thread, where it was measured.
    """

    file_name: ClassVar[str] = "design_space.parquet"
    schema_version: Literal[1] = 1
    lineage: Lineage
    model_digest: str
    calibration_digest: str
    similarity: str
    layers: tuple[str, ...]
    eligible: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...]
    latency_ms: dict[str, float] = {}

    def without_gradient(self) -> tuple[str, ...]:
        """Layers at which the model gives no gradient: their sensitivity is the output error."""
        found = {c.layer for c in self.candidates if not c.has_gradient}
        return tuple(name for name in self.layers if name in found)

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file (into a folder: under the artifact's own name)."""
        target = Path(path)
        target = target / self.file_name if target.is_dir() else target
        rows = [
            {
                **candidate.model_dump(exclude={"cost"}),
                "params": candidate.cost.params,
                "macs": candidate.cost.macs,
            }
            for candidate in self.candidates
        ]
        about = self.model_dump_json(exclude={"candidates"}).encode()
        table = pa.Table.from_pylist(rows, schema=_COLUMNS.with_metadata({b"lrf": about}))
        write_atomically_with(target, lambda temporary: pq.write_table(table, temporary))
        return target

    @classmethod
    def load(cls, path: str | Path) -> DesignSpace:
        """Read a Parquet file or the folder that holds it. Raises ArtifactError."""
        source = Path(path)
        source = source / cls.file_name if source.is_dir() else source
        try:
            table = pq.read_table(source)
            about = json.loads(table.schema.metadata[b"lrf"])
            rows = table.to_pylist()
            candidates = [
                {"cost": {"params": row.pop("params"), "macs": row.pop("macs")}, **row}
                for row in rows
            ]
            return cls.model_validate({**about, "candidates": candidates})
        except OSError as error:
            raise ArtifactError(f"cannot read DesignSpace {source}: {error}") from None
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{source} is no DesignSpace of this version: {reason}") from None


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
        points: all plans that were measured, in that order; layers not refitted.
        samples: training samples that they were measured on.
        labelled: False where the original's own classes stood for labels.
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
        minimized: the quantity that the policy minimised; empty where it minimises none.
        limits: what the whole model may have at most, by the name of the quantity.
        totals_before, totals_after: of every quantity that is known, of the whole model; of
            `latency` (milliseconds) and losses of the explored layers.
        predicted_loss: summed sensitivity of the choices.
        predicted_drop: accuracy points before fine-tuning, by the curve from summed loss to drop;
            None unless an accuracy drop decided.
        calibration: of that curve.
    """

    file_name: ClassVar[str] = "plan.json"
    policy: str
    model_digest: str
    factorized_digest: str
    choices: tuple[Choice, ...]
    before: Cost
    after: Cost
    minimized: str = ""
    limits: dict[str, float] = {}
    totals_before: dict[str, float] = {}
    totals_after: dict[str, float] = {}
    predicted_loss: float
    predicted_drop: float | None = None
    calibration: DropCalibration | None = None

    def replaced(self) -> tuple[Candidate, ...]:
        return tuple(choice.candidate for choice in self.choices if choice.candidate)


class EpochRecord(Record):
    """One point of the learning curve; accuracies in percent, on the held-out training share."""

    epoch: int
    loss: float
    validation_loss: float
    validation_accuracy: float


class FinetuneRecord(Artifact):
    """How the factorized model was trained, once. Epoch 0 is the state before training."""

    file_name: ClassVar[str] = "finetune.json"
    before_digest: str
    after_digest: str
    samples: int
    steps: int
    seconds: float
    best_epoch: int
    curve: tuple[EpochRecord, ...]


class Check(Record):
    """One question of the gate. `measured` None means it could not be measured: a fail."""

    name: str
    limit: str
    measured: str | None
    passed: bool
    note: str = ""


class Verdict(Artifact):
    """The gate's answer for one candidate model.

    Attributes:
        baseline_digest, candidate_digest: content digests of the two models.
        drop_interval: 95% interval of the accuracy drop (points), paired bootstrap.
        agreement: percent of samples on which both models give the same class.
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


class ReleaseFile(Record):
    """One file of a release: path below the version, size in bytes, sha256 (hex)."""

    path: str
    size: int
    sha256: str


class Release(Artifact):
    """The manifest of a published version: written last, never changed."""

    file_name: ClassVar[str] = "manifest.json"
    name: str
    version: str
    location: str
    model_digest: str
    verdict_digest: str
    files: tuple[ReleaseFile, ...]


def digest_of(content: Any) -> str:
    """sha256 (hex) of JSON-serializable content, independent of key order."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
