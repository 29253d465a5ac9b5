"""Scored candidates of the layers explored, as one Parquet table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from lrf_core.artifacts.analysis import Cost
from lrf_core.artifacts.record import Lineage, Record
from lrf_core.errors import ArtifactError
from lrf_core.files import limits
from lrf_core.files.atomic import write_atomically_with
from lrf_core.files.limits import CANDIDATES, check_limit, check_memory

# Of one candidate as plain data.
_BYTES_PER_CANDIDATE = 4096
_MOST_RANKS = 64
_LONGEST_TEXT = 4096


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
        latency_ms: of one sample on one thread, between measured ranks; None if not measured.
    """

    layer: str
    method: str
    form: str = ""
    ranks: tuple[int, ...]
    cost: Cost
    error: float = Field(ge=0, allow_inf_nan=False)
    similarity: float = Field(allow_inf_nan=False)
    sensitivity: float = Field(ge=0, allow_inf_nan=False)
    has_gradient: bool = True
    note: str = ""
    latency_ms: float | None = None

    @property
    def technique(self) -> str:
        """Method and form, for people: `cp (per axis)`."""
        return f"{self.method} ({self.form})" if self.form else self.method


# Rows converted at once, which keeps what is in memory twice small.
_AT_ONCE = 2**14
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
        eligible: all layers that may be explored, in the order of the model; empty if that is
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
    latency_ms: dict[str, float] = Field(default_factory=dict)

    def without_gradient(self) -> tuple[str, ...]:
        """Layers at which the model gives no gradient: their sensitivity is the output error."""
        found = {c.layer for c in self.candidates if not c.has_gradient}
        return tuple(name for name in self.layers if name in found)

    def save(self, path: str | Path) -> Path:
        """Write one Parquet file (into a folder: under the artifact's own name)."""
        target = Path(path)
        target = target / self.file_name if target.is_dir() else target
        about = self.model_dump_json(exclude={"candidates"}).encode()
        table = _table(self.candidates).replace_schema_metadata({b"lrf": about})
        write_atomically_with(target, lambda temporary: pq.write_table(table, temporary))
        return target

    @classmethod
    def load(cls, path: str | Path) -> DesignSpace:
        """Read a Parquet file or the folder that holds it. Raises ArtifactError."""
        source = Path(path)
        source = source / cls.file_name if source.is_dir() else source
        try:
            table = _read_table(source)
            about = limits.parse_json(table.schema.metadata[b"lrf"])
            space = cls.model_validate({**about, "candidates": _candidates(table)})
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())[:200]
            raise ArtifactError(f"cannot read DesignSpace {source}: {reason}") from None
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{source} is no DesignSpace of this version: {reason}") from None
        if not {candidate.layer for candidate in space.candidates} <= set(space.layers):
            raise ArtifactError(
                f"{source} is no DesignSpace of this version: a candidate is of no layer in it"
            )
        return space


def _read_table(source: Path) -> pa.Table:
    """The table in a file, whose size was looked at before.

    Raises:
        OSError: it cannot be read.
        ArtifactError: it has too many rows, or takes too much memory.
        pa.ArrowException, ValueError: it is damaged, or no such table.
    """
    if not source.is_file():
        source.stat()
        raise ValueError("it is no plain file")
    # Texts that repeat are read once.
    texts = [field.name for field in pq.read_schema(source) if field.type == pa.string()]
    with pq.ParquetFile(source, read_dictionary=texts) as file:
        _check_size(file.metadata, source)
        for field in file.schema_arrow:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if field.name not in _COLUMNS.names or kind != _COLUMNS.field(field.name).type:
                raise ValueError(f"column '{field.name:.60}' is unknown, or of another type")
        table = file.read()
    for name in texts:
        longest = pc.max(pc.binary_length(table[name].combine_chunks().dictionary)).as_py()
        if (longest or 0) > _LONGEST_TEXT:
            raise ValueError(f"column '{name}' has texts of {longest:,} bytes")
    return table


def _check_size(about: pq.FileMetaData, source: Path) -> None:
    """Compare what the file says of itself with the ceilings, and with itself."""
    rows = about.num_rows
    check_limit(CANDIDATES, rows, f"{source}: number of candidates is", ArtifactError)
    if about.num_columns > len(_COLUMNS):
        raise ValueError(f"it has {about.num_columns} columns, more than {len(_COLUMNS)}")
    columns = [
        about.row_group(group).column(place)
        for group in range(about.num_row_groups)
        for place in range(about.num_columns)
    ]
    if any(each.num_values > _MOST_RANKS * rows for each in columns):
        raise ValueError("a column has more values than there are candidates")
    size = sum(each.total_uncompressed_size for each in columns)
    check_memory(size + _BYTES_PER_CANDIDATE * rows, f"{source} unpacks to", ArtifactError)


def _table(candidates: Sequence[Candidate]) -> pa.Table:
    batches = [
        pa.RecordBatch.from_pylist([_row(each) for each in some], schema=_COLUMNS)
        for some in (
            candidates[start : start + _AT_ONCE] for start in range(0, len(candidates), _AT_ONCE)
        )
    ]
    return pa.Table.from_batches(batches, schema=_COLUMNS)


def _row(candidate: Candidate) -> dict[str, Any]:
    return {**candidate.model_dump(exclude={"cost"}), **candidate.cost.model_dump()}


def _candidates(table: pa.Table) -> list[Candidate]:
    """Some rows at a time: as dicts, they take more memory than as candidates."""
    return [
        Candidate.model_validate(_fields(row))
        for batch in table.to_batches(_AT_ONCE)
        for row in batch.to_pylist()
    ]


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    # Files of older versions lack some columns.
    words: dict[str, Any] = {
        name: sys.intern(row[name]) for name in ("layer", "method", "form", "note") if name in row
    }
    cost = {"params": row.pop("params"), "macs": row.pop("macs")}
    return {**row, **words, "cost": cost}
