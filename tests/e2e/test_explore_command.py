"""`lrf explore` in shards, again and again, with a cache here and there; and killed in between."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from seaweed import Seaweed
from tiny import Trained

from benchmarks import interrupted
from lrf_core import analyze, load_model, open_data
from lrf_core.artifacts import Analysis, DesignSpace, Plan
from lrf_core.commands import app as cli
from lrf_core.run.outputs import Outputs

QUICK = ["--set", "explore.samples=48", "--set", "explore.methods=[svd,tucker]"]
Lrf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lrf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lrf:
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lrf", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was logged since the last time this was asked."""

    def text() -> str:
        said = caplog.text
        caplog.clear()
        return said

    return text


@pytest.fixture(scope="module")
def analysis(trained: Trained) -> Analysis:
    model = load_model(trained.model_file)
    return analyze(model, open_data(str(trained.data_file), model))


@pytest.fixture
def given(trained: Trained, analysis: Analysis, tmp_path: Path) -> list[object]:
    """Model, data and the output with an analysis in it."""
    analysis.save(Outputs(tmp_path / "out").analysis)
    return [trained.model_file, "--data", trained.data_file, "--out", tmp_path / "out"]


def same(one: DesignSpace, other: DesignSpace) -> bool:
    return one.model_dump(exclude={"lineage"}) == other.model_dump(exclude={"lineage"})


def test_shards_are_explored_by_number_and_read_together(
    given: list[object], lrf: Lrf, logged: Callable[[], str], tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path / "out")
    for shard in ("1/3", "3/3"):
        code, out, err = lrf("explore", *given, *QUICK, "--shard", shard)
        assert code == 0, err
    assert f"design_space-{shard.replace('/', '-of-')}.parquet" in out.replace("\n", "")
    code, _, err = lrf("decompose", *given, "--params-reduction", "0.1")
    assert code == 2
    assert "shard 2/3 is missing" in err
    assert not outputs.plan.exists()
    assert lrf("explore", *given, *QUICK, "--shard", "2/3")[0] == 0
    assert not outputs.design_space.exists()
    code, _, err = lrf("decompose", *given, "--params-reduction", "0.1")
    assert code == 0, err
    joined, plan = DesignSpace.load(outputs.design_space), Plan.load(outputs.plan)
    assert len(plan.choices) == len(joined.layers)
    assert plan.lineage.inputs["design_space"] == joined.lineage.key()
    logged()
    assert lrf("explore", *given, *QUICK)[0] == 0
    said = logged()
    assert "scores (layer and method) are in the cache" in said
    assert "0 layers are left" in said
    assert same(DesignSpace.load(outputs.design_space), joined)


def test_files_of_shards_can_be_named(given: list[object], lrf: Lrf, tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "out")
    files = []
    for shard in ("1/2", "2/2"):
        assert lrf("explore", *given, *QUICK, "--shard", shard)[0] == 0
        made = outputs.folder / f"design_space-{shard.replace('/', '-of-')}.parquet"
        files.append(made.rename(tmp_path / made.name))
    goal = ["--params-reduction", "0.1"]
    code, _, err = lrf("decompose", *given, *goal, "--space", files[0])
    assert code == 2
    assert "shard 2/2 is missing" in err
    code, _, err = lrf("decompose", *given, *goal, "--space", files[0], "--space", files[1])
    assert code == 0, err
    assert Plan.load(outputs.plan).replaced()


def test_the_cache_is_where_it_is_asked_for(
    given: list[object],
    lrf: Lrf,
    logged: Callable[[], str],
    tmp_path: Path,
    s3_settings: Seaweed,
) -> None:
    outputs = Outputs(tmp_path / "out")
    assert lrf("explore", *given, *QUICK, "--no-cache")[0] == 0
    assert not (outputs.folder / ".cache").exists()
    plain = DesignSpace.load(outputs.design_space)
    for where in (tmp_path / "elsewhere", f"s3://{s3_settings.bucket}/{tmp_path.name}"):
        logged()
        assert lrf("explore", *given, *QUICK, "--cache", where)[0] == 0
        assert "in the cache" not in logged()
        assert lrf("explore", *given, *QUICK, "--cache", where)[0] == 0
        said = logged()
        assert "0 layers are left" in said
        assert str(where) in said
        assert same(DesignSpace.load(outputs.design_space), plain)
    assert not (outputs.folder / ".cache").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cache", "{file}/cache"], "the cache of scores cannot be used: cannot write"),
        (["--cache", "s3://Not_A_Bucket/x"], "s3://bucket/prefix"),
        (["--cache", "ftp://host/x"], "unknown kind"),
        (["--cache", "x", "--no-cache"], "exclude each other"),
        (["--shard", "3/2"], "no shard 3 of 2"),
        (["--shard", "0/2"], "counted from 1"),
        (["--shard", "two"], "write its number and how many"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], message: str, given: list[object], lrf: Lrf, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    asked = [flag.format(file=tmp_path / "file") for flag in flags]
    code, out, err = lrf("explore", *given, *QUICK, *asked)
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("lrf: ")
    assert message in err
    assert not Outputs(tmp_path / "out").design_space.exists()


def test_compress_says_at_the_start_that_its_cache_cannot_be_written(
    trained: Trained, lrf: Lrf, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    flags = ["--data", trained.data_file, "--out", tmp_path / "out"]
    code, _, err = lrf(
        "compress", trained.model_file, *flags, "--cache", tmp_path / "file" / "cache"
    )
    assert code == 2
    assert "cache of scores cannot be used" in err
    assert not Outputs(tmp_path / "out").analysis.exists()


def test_what_is_scored_is_said_when_asked(
    given: list[object],
    lrf: Lrf,
    logged: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LRF_LOG_LEVEL", "debug")
    assert lrf("explore", *given, *QUICK, "--no-cache")[0] == 0
    assert "scoring 'conv1b' by tucker" in logged()
    monkeypatch.setenv("LRF_LOG_LEVEL", "loud")
    code, _, err = lrf("explore", *given)
    assert code == 2
    assert "debug, info, warning or error" in err


@pytest.mark.slow
def test_after_kill_9_the_same_design_space_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "interrupted.json"
    few = ["--kills", "2", "--seed", "3", "--methods", "tucker,tensor_train,svd"]
    monkeypatch.setattr(sys, "argv", ["interrupted", *few, "--out", str(out)])

    interrupted.main()

    assert "kill -9" in capsys.readouterr().out
    written = json.loads(out.read_text())
    facts, rows = written["facts"], written["rows"]
    assert facts["kills"] == len(rows) == 2
    assert facts["same_design_space"]
    assert facts["scores"] <= facts["begun"] <= facts["scores"] + 2 * facts["threads"]
    assert all(len(row["again"]) <= facts["threads"] for row in rows)
    assert rows[0]["done"] > 0
