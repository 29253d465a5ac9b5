"""`python -m pipelines submit` and `follow`: what a user or a script gets, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_server import RUN, SPEC, Api, run_in
from seaweed import Seaweed

from lrf_core.artifacts import (
    Check,
    Cost,
    Lineage,
    ModelMeasures,
    Release,
    ReleaseSummary,
    Verdict,
    Verdicts,
)
from lrf_core.storage import open_store
from pipelines.cli import main


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """Runs a command in this process, with a spec file in the current folder."""

    api: Api
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str) -> Ended:
        argv = ["pipelines", *arguments, "--host", self.api.host]
        self.monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        said = self.capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)


@pytest.fixture
def root(seaweed: Seaweed, request: pytest.FixtureRequest) -> str:
    return f"s3://{seaweed.bucket}/roots/{request.node.name}"


@pytest.fixture
def command(
    api: Api,
    s3_settings: Seaweed,
    root: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    settings = {**SPEC.model_dump(mode="json"), "cluster": {"pipeline_root": root}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return Command(api, capsys, monkeypatch)


@pytest.fixture
def started(command: Command, root: str) -> Command:
    """The same where the run was started before, for `follow`."""
    runtime = {"pipeline_root": root}
    command.api.created.append({"display_name": "lrf", "runtime_config": runtime})
    return command


def verdict(passed: bool) -> Verdict:
    measures = ModelMeasures(cost=Cost(params=10, macs=100), weight_bytes=40)
    check = Check(name="accuracy drop", limit="at most 1 point", measured="0.2", passed=passed)
    return Verdict(
        lineage=Lineage(inputs={}, settings={}),
        passed=passed,
        baseline_digest="b" * 64,
        candidate_digest="c" * 64,
        checks=(check,),
        baseline=measures,
        candidate=measures,
    )


def leave(root: str, judged: Verdict) -> None:
    """What the steps of the run leave below its pipeline root."""
    store = open_store(root)
    place = f"lrf-compress/{RUN}"
    verdicts = Verdicts.of([judged], 0).model_dump_json().encode()
    store.put(f"{place}/validate/attempt-1/verdicts", verdicts)
    if judged.passed:
        release = Release(
            lineage=Lineage(inputs={}, settings={}),
            name="digits",
            version="v-1f3a",
            location="s3://bucket/models/digits/v-1f3a",
            model_digest="c" * 64,
            verdict_digest=judged.digest(),
            files=(),
            summary=ReleaseSummary.of(judged),
        )
        store.put(f"{place}/publish/attempt-1/release", release.model_dump_json().encode())


PUBLISHED = run_in("SUCCEEDED", validate="SUCCEEDED", publish="SUCCEEDED")
REFUSED = run_in("SUCCEEDED", validate="SUCCEEDED")


def test_a_pass_shows_the_checks_and_the_release(command: Command, root: str) -> None:
    command.api.states = [PUBLISHED]
    leave(root, verdict(True))
    ended = command("submit", "spec.yaml")
    assert ended.code == 0, ended.err
    assert "Gate: passed" in ended.out
    assert "at most 1 point" in ended.out
    assert "release: s3://bucket/models/digits/v-1f3a" in ended.out
    assert "submitted: " in ended.err
    assert "every step runs again: what is in model: /data/m.keras" in ended.err


def test_a_refusal_shows_the_checks_and_ends_with_3(started: Command, root: str) -> None:
    started.api.states = [REFUSED]
    leave(root, verdict(False))
    ended = started("follow", RUN)
    assert ended.code == 3
    assert "Gate: NOT PASSED" in ended.out
    assert "not passed: the candidate failed the gate; nothing is published" in ended.err


@pytest.mark.parametrize(("run", "code"), [(PUBLISHED, 0), (REFUSED, 3)])
def test_machines_get_json(started: Command, root: str, run: dict[str, Any], code: int) -> None:
    started.api.states = [run]
    leave(root, verdict(code == 0))
    ended = started("follow", RUN, "--json")
    assert ended.code == code
    told = json.loads(ended.out)
    assert told["run_id"] == RUN
    assert told["passed"] == told["verdict"]["passed"] == (code == 0)
    assert (told["release"] is not None) == (code == 0)


def test_without_a_verdict_to_read_the_run_decides(started: Command) -> None:
    started.api.states = [REFUSED]
    ended = started("follow", RUN, "--json")
    assert ended.code == 3
    assert "no verdict to show: there is none below s3://" in ended.err
    assert json.loads(ended.out)["verdict"] is None


def test_a_verdict_that_is_damaged_is_not_shown(started: Command, root: str) -> None:
    started.api.states = [PUBLISHED]
    open_store(root).put(f"lrf-compress/{RUN}/validate/1/verdicts", b"{}")
    ended = started("follow", RUN)
    assert ended.code == 0
    assert "no verdict to show: " in ended.err
    assert "is no Verdicts of this version" in ended.err


def test_what_fails_is_one_line_and_ends_with_1(started: Command) -> None:
    started.api.states = [run_in("FAILED", analyze="FAILED")]
    ended = started("follow", RUN)
    assert ended.code == 1
    assert ended.err.count("lrf: ") == 1
    assert f"lrf: the run failed in analyze; the step's log says why: {started.api.host}" in (
        ended.err
    )


def test_bad_input_ends_with_2(command: Command) -> None:
    Path("spec.yaml").write_text("model: m\ndata: d\ncluster: {stages: {finetune: {gpus: -1}}}\n")
    ended = command("submit", "spec.yaml")
    assert ended.code == 2
    assert "lrf: setting 'cluster.stages.finetune.gpus': " in ended.err


def test_who_does_not_wait_gets_the_id_and_follows_later(command: Command, root: str) -> None:
    command.api.states = [PUBLISHED]
    leave(root, verdict(True))
    ended = command("submit", "spec.yaml", "--no-wait", "--json")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert (told["run_id"], told["passed"]) == (RUN, None)
    ended = command("follow", told["run_id"])
    assert ended.code == 0
    assert "Gate: passed" in ended.out


def test_an_interrupted_run_goes_on_and_is_found_again(command: Command, root: str) -> None:
    command.api.states = [run_in("RUNNING", analyze="RUNNING")]
    leave(root, verdict(True))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "submit", "spec.yaml", "--host", command.api.host],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A process started in the background may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stderr is not None
        while "analyze: running" not in (line := process.stderr.readline()):
            assert line, "it ended before the run was under way"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"lrf pipeline follow {RUN} --host {command.api.host}" in said
    command.api.states = [PUBLISHED]
    ended = command("follow", RUN)
    assert ended.code == 0, ended.err
    assert len(command.api.created) == 1
