"""Specs, artifacts and design spaces from anybody: small, unambiguous, and of the right form."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_artifacts import RECORD, SPACE

from lrf_core.artifacts import Cost, DesignSpace, FinetuneRecord, Verdict
from lrf_core.errors import ArtifactError, SpecError
from lrf_core.spec import load_spec

NINES = "lol: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"lol{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
SPECS = {
    "billion laughs": (NINES, "stands for more than 100,000"),
    "itself": ("model: &a [*a]\n", "stands for more than"),
    "merged with itself": ("a: &a\n  <<: *a\n", "stands for more than"),
    "code": ("model: !!python/object/apply:os.abort []\n", "could not determine a constructor"),
    "nested lists": ("goal: " + "[" * 100_000, "nested too deep"),
    "nested mappings": ("".join(" " * i + f"a{i}:\n" for i in range(1200)), "nested too deep"),
    "a huge number": ("seed: " + "9" * 5000, "4300 digits"),
    "a date that is none": ("seed: 2024-99-99", "month must be in 1..12"),
    "a number without digits": ("seed: !!int ''", "cannot be read"),
    "a truth that is none": ("seed: !!bool x", "cannot be read"),
    "a key twice": ("seed: 1\nseed: 2\n", "the key 'seed' is there twice"),
    "a key twice below": ("goal: {max_params: 1, max_params: 2}\n", "'max_params' is there twice"),
    "a list as key": ("? [a]\n: 1\n", "unhashable"),
    "two documents": ("--- {}\n--- {}\n", "single document"),
    "control characters": ("model: \x07", "special characters are not allowed"),
    "not UTF-8": (b"model: \xff", "not valid YAML"),
    "long": ("# " + "x" * (1 << 20), r"bytes, the limit is 1,048,576; .*LRF_MAX_SPEC"),
}


@pytest.mark.parametrize("case", SPECS)
def test_a_harmful_spec_is_refused_at_once(tmp_path: Path, case: str) -> None:
    content, message = SPECS[case]
    file = tmp_path / "spec.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.monotonic()
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.monotonic() - started < 5


def test_aliases_may_be_used(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("model: m\ndata: d\ngoal: {max_params: &most 900}\ngate: {seed: *most}\n")
    with pytest.raises(SpecError, match=r"unknown setting 'gate.seed'"):
        load_spec(file)
    file.write_text("model: &name m\ndata: *name\n")
    assert load_spec(file).data == "m"


def nested(depth: int) -> Any:
    return json.loads('{"a":' * depth + "1" + "}" * depth)


def record(**changes: Any) -> str:
    return json.dumps({**json.loads(RECORD.model_dump_json()), **changes})


DOCUMENTS = {
    "a key twice": (
        record().replace('"steps": 3', '"steps": 3, "steps": 4'),
        "the key 'steps' is there twice",
    ),
    "not finite": (record().replace("1.5", "NaN"), "no FinetuneRecord of this version"),
    "infinite": (record().replace("1.5", "-Infinity"), "no FinetuneRecord of this version"),
    "nested deep": ("[" * 10**5, "recursion limit"),
    "nested in settings": (
        record(lineage={"inputs": {}, "settings": nested(300)}),
        "recursion limit",
    ),
    "a huge number": (record().replace('"steps": 3', f'"steps": {"9" * 5000}'), "out of range"),
    "a list": ("[]", "should be an object"),
    "half a character": (record().replace('"b"', r'"\ud800"'), "hex escape"),
    "not UTF-8": (b'{"a": "\xff"}', "no FinetuneRecord of this version"),
    "a long key": (record(**{"x" * 10**6: 1}), "Extra inputs"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_harmful_artifact_is_refused(tmp_path: Path, case: str) -> None:
    content, message = DOCUMENTS[case]
    file = tmp_path / FinetuneRecord.file_name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtifactError, match=message) as caught:
        FinetuneRecord.load(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_long_artifact_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "verdict.json"
    with file.open("wb") as stream:
        stream.truncate(10**10)  # with a hole: it takes no space
    for kind in (FinetuneRecord, Verdict):
        with pytest.raises(ArtifactError, match=r"10,000,000,000 bytes.*LRF_MAX_DOCUMENT"):
            kind.load(file)


@pytest.mark.parametrize("params", [-1, 2**63])
def test_a_cost_is_a_number_that_a_table_can_hold(params: int) -> None:
    with pytest.raises(ValueError, match="params"):
        Cost(params=params, macs=0)


def table(**changes: Any) -> pa.Table:
    """The table of a design space of two candidates, with other columns or metadata."""
    table = pa.Table.from_pylist(
        [
            {
                "layer": "c",
                "method": "svd",
                "ranks": [1],
                "params": 1,
                "macs": 1,
                "error": 0.1,
                "similarity": 0.1,
                "sensitivity": 0.1,
            }
        ]
        * 2
    ).cast(COLUMNS)
    about = {
        **json.loads(SPACE.model_dump_json(exclude={"candidates"})),
        **changes.pop("about", {}),
    }
    for name, values in changes.items():
        place = table.schema.get_field_index(name)
        column = values if isinstance(values, pa.Array) else pa.array(values)
        if place < 0:
            table = table.append_column(name, column)
        else:
            table = table.set_column(place, name, column)
    return table.replace_schema_metadata({b"lrf": json.dumps(about).encode()})


COLUMNS = pa.schema(
    [
        *[(name, pa.string()) for name in ("layer", "method")],
        ("ranks", pa.list_(pa.int32())),
        *[(name, pa.int64()) for name in ("params", "macs")],
        *[(name, pa.float64()) for name in ("error", "similarity", "sensitivity")],
    ]
)
LONG = pa.array([[0] * 10**6] * 2, pa.list_(pa.int32()))
SPACES = {
    "another column": (lambda: table(code=["x", "y"]), "column 'code' is unknown"),
    "another type": (lambda: table(layer=[1, 2]), "column 'layer' is .*another type"),
    "nested lists": (lambda: table(ranks=[[[[1]]], [[[2]]]]), "column 'ranks' is"),
    "records": (lambda: table(ranks=[{"a": 1, "b": 2}] * 2), "column 'ranks' is|more than 12"),
    "many ranks": (lambda: table(ranks=LONG), "more values than there are candidates"),
    "a long text": (lambda: table(note=["x" * 10**7] * 2), "texts of 10,000,000 bytes"),
    "no layer": (lambda: table(layer=["gone", "c"]), "a candidate is of no layer"),
    "no value": (lambda: table(error=pa.array([None, 0.1], pa.float64())), "error"),
    "negative": (lambda: table(params=[-1, 1]), "greater than or equal to 0"),
    "deep settings": (
        lambda: table(about={"lineage": {"inputs": {}, "settings": nested(400)}}),
        "recursion limit",
    ),
}


@pytest.mark.parametrize("case", SPACES)
def test_a_harmful_design_space_is_refused(tmp_path: Path, case: str) -> None:
    make, message = SPACES[case]
    pq.write_table(make(), tmp_path / DesignSpace.file_name)
    with pytest.raises(ArtifactError, match=message) as caught:
        DesignSpace.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_older_design_space_without_some_columns_is_read(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / DesignSpace.file_name)
    assert [candidate.layer for candidate in DesignSpace.load(tmp_path).candidates] == ["c", "c"]


def test_more_candidates_than_the_limit_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table(), tmp_path / DesignSpace.file_name)
    monkeypatch.setenv("LRF_MAX_CANDIDATES", "1")
    with pytest.raises(ArtifactError, match=r"candidates is 2, the limit is 1; .*MAX_CANDIDATES"):
        DesignSpace.load(tmp_path)
    monkeypatch.setenv("LRF_MAX_CANDIDATES", "2")
    monkeypatch.setenv("LRF_MAX_UNPACKED", "4K")
    with pytest.raises(ArtifactError, match=r"unpacks to .*LRF_MAX_UNPACKED"):
        DesignSpace.load(tmp_path)


@pytest.mark.parametrize("content", [b"PAR1" + b"\x00" * 50 + b"\x10\x00\x00\x00PAR1", b"PAR1PAR1"])
def test_what_arrow_says_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DesignSpace.file_name).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        DesignSpace.load(tmp_path)
    assert "\n" not in str(caught.value)
