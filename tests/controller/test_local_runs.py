"""Runs on this machine: found again after a kill, never two, and how each end is read."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, free_port, wait_for

from lrf_core.errors import UnreachableStorageError
from lrf_core.storage import open_store
from pipelines.controller.engine import RunEnd, RunRequest
from pipelines.controller.local_runs import LocalRuns

LIGHT_RUN = str(Path(__file__).with_name("light_run.py"))
SLOW = (
    "import sys, time, pathlib, os; out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]);"
    "out.mkdir(exist_ok=True); (out / 'pid').write_text(str(os.getpid()));"
    "open(out / 'count', 'a').write('x');"
    "[time.sleep(0.05) for _ in range(2000) if not (out / 'go').exists()];"
    "sys.stderr.write('lrf: said at the end\\n'); sys.exit(int((out / 'go').read_text()))"
)


MADE: list[LocalRuns] = []


@pytest.fixture(autouse=True)
def no_children_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "releases"))
    yield
    for runs in MADE:
        for child in runs._children:
            child.wait(timeout=60)
    MADE.clear()


def engine(tmp_path: Path, *command: str) -> LocalRuns:
    MADE.append(LocalRuns(tmp_path / "runs", (sys.executable, *command)))
    return MADE[-1]


def work(tmp_path: Path, content: bytes = b"model", attempt: int = 1) -> RunRequest:
    model = tmp_path / "model.keras"
    model.write_bytes(content)
    settings = {
        "model": str(model),
        "data": "d.npz",
        "publish": {"to": (tmp_path / "out").as_uri()},
    }
    return RunRequest("ab" * 32, attempt, settings)


def slow(tmp_path: Path) -> LocalRuns:
    return engine(tmp_path, "-c", SLOW)


def ended(runs: LocalRuns, run_id: str) -> RunEnd:
    found: Any = wait_for(lambda: runs.poll(run_id), lambda: f"{run_id} does not end")
    assert isinstance(found, RunEnd)
    return found


def light(tmp_path: Path, content: bytes) -> RunEnd:
    runs = engine(tmp_path, LIGHT_RUN)
    return ended(runs, runs.start(work(tmp_path, content)))


def test_a_run_that_published(tmp_path: Path) -> None:
    end = light(tmp_path, b"model")
    assert (end.outcome, end.reason) == ("published", "")
    assert end.result is not None
    assert end.result.name == "fleet"
    assert end.result.release == f"{(tmp_path / 'out').as_uri()}/fleet/{end.result.version}"
    assert end.result.metrics["params_after"] == 50


def test_a_gate_that_said_no(tmp_path: Path) -> None:
    end = light(tmp_path, b"no")
    assert end.outcome == "refused"
    assert "accuracy_drop 0.5 points, limit <= 1 point" in end.reason
    assert end.result is not None
    assert end.result.release is None


def test_bad_input_and_failures(tmp_path: Path) -> None:
    assert light(tmp_path, b"bad") == RunEnd("bad_input", "the model cannot be read")
    (tmp_path / "other").mkdir()
    assert light(tmp_path / "other", b"shaky") == RunEnd("failed", "no space left on the device")


def test_a_run_is_started_once_and_found_by_another_controller(tmp_path: Path) -> None:
    first, second = slow(tmp_path), slow(tmp_path)
    run_id = first.start(work(tmp_path))
    out = tmp_path / "runs" / run_id.partition("/")[0] / "out"
    wait_for((out / "count").exists, lambda: "the run does not begin")
    assert second.start(work(tmp_path)) == run_id
    assert first.poll(run_id) is None
    assert second.poll(run_id) is None
    (out / "go").write_text("1")
    assert ended(second, run_id) == RunEnd("failed", "said at the end")
    assert second.start(work(tmp_path)) == run_id  # it was run
    assert ended(first, run_id).reason == "said at the end"
    assert (out / "count").read_text() == "x"
    # Another attempt is another run, in the same folder.
    (out / "go").write_text("2")
    again = first.start(work(tmp_path, attempt=2))
    assert ended(first, again) == RunEnd("bad_input", "said at the end")
    assert (out / "count").read_text() == "xx"


@pytest.mark.parametrize("victim", ["run", "all"])
def test_a_run_that_was_killed_may_be_tried_again(tmp_path: Path, victim: str) -> None:
    runs = slow(tmp_path)
    run_id = runs.start(work(tmp_path))
    pid = tmp_path / "runs" / run_id.partition("/")[0] / "out" / "pid"
    wait_for(lambda: pid.exists() and pid.read_text(), lambda: "the run does not begin")
    number = int(pid.read_text())
    kill: Callable[[int, int], None] = os.kill if victim == "run" else os.killpg
    kill(os.getpgid(number) if victim == "all" else number, signal.SIGKILL)
    end = ended(runs, run_id)
    assert end.outcome == "failed"
    assert "log" in end.reason


def test_the_run_holds_on_when_only_its_wrapper_is_killed(tmp_path: Path) -> None:
    runs = slow(tmp_path)
    run_id = runs.start(work(tmp_path))
    out = tmp_path / "runs" / run_id.partition("/")[0] / "out"
    wait_for(lambda: (out / "pid").exists() and (out / "pid").read_text(), lambda: "no run")
    [wrapper] = runs._children
    wrapper.kill()
    wrapper.wait()
    assert runs.poll(run_id) is None  # no second one may start beside it
    assert runs.start(work(tmp_path)) == run_id
    (out / "go").write_text("0")
    assert "killed" in ended(runs, run_id).reason
    assert (out / "count").read_text() == "x"


def test_a_folder_that_is_gone_and_a_result_that_is_damaged(tmp_path: Path) -> None:
    runs = slow(tmp_path)
    end = runs.poll("nothing/1")
    assert end is not None
    assert "is gone" in end.reason
    place = tmp_path / "runs" / "some" / "1"
    place.mkdir(parents=True)
    (place / "result.json").write_text("{")
    end = runs.poll("some/1")
    assert end is not None
    assert (end.outcome, "cannot read" in end.reason) == ("failed", True)


def test_storage_that_is_down_is_no_bad_input_of_a_run(
    no_s3_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRF_S3_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("LRF_S3_RETRY_S", "0")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(UnreachableStorageError) as caught:
        open_store("s3://bucket").get("key")
    assert caught.value.exit_code == 1
