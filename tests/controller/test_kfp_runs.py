"""Runs in Kubeflow Pipelines: found by name, of several the oldest, and what they came to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from judged_runs import judged, release_of
from kfp_api import KfpApi, kfp_api

from lrf_core.artifacts import Verdicts
from lrf_core.errors import LrfError
from lrf_core.storage import open_store
from pipelines.controller.engine import RunRequest
from pipelines.controller.kfp_runs import KfpRuns
from pipelines.controller.settings import PipelinesSettings
from pipelines.submit import TOKEN

WORK = RunRequest(
    "ab" * 32,
    1,
    {"model": "s3://b/m.keras", "data": "s3://b/d.npz", "publish": {"to": "s3://b/out"}},
)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpApi]:
    monkeypatch.delenv(TOKEN, raising=False)
    with kfp_api() as running:
        yield running


def engine(api: KfpApi, root: str | None = None) -> KfpRuns:
    return KfpRuns(PipelinesSettings(host=api.host, root=root))


def verdicts(passed: bool) -> bytes:
    return Verdicts.of([judged(passed=passed)], 0).model_dump_json().encode()


def test_a_run_is_named_by_request_and_attempt_and_started_once(api: KfpApi) -> None:
    runs = engine(api)
    assert runs.start(WORK) == runs.start(WORK) == "run-0"
    [created] = api.created
    assert created["display_name"] == WORK.name == f"lrf-{'ab' * 12}-1"
    assert '"model":"s3://b/m.keras"' in created["runtime_config"]["parameters"]["spec"]
    assert runs.start(RunRequest(WORK.address, 2, WORK.settings)) == "run-1"


def test_where_to_pass_things_on_is_passed_on(api: KfpApi) -> None:
    engine(api, "s3://b/runs").start(WORK)
    assert api.created[0]["runtime_config"]["pipeline_root"] == "s3://b/runs"


def test_a_run_whose_answer_got_lost_is_found(api: KfpApi) -> None:
    api.lose_answer = True
    with pytest.raises(LrfError, match="timeout"):
        engine(api).start(WORK)
    assert engine(api).start(WORK) == "run-0"
    assert len(api.created) == 1


def test_of_two_started_at_the_same_moment_the_oldest_counts(api: KfpApi) -> None:
    api.create("another")
    api.after_create = lambda: api.create(WORK.name) and None
    assert engine(api).start(WORK) == "run-1"
    assert api.terminated == ["run-2"]
    assert engine(api).start(WORK) == "run-1"
    assert api.terminated == ["run-2"]


def test_what_a_run_came_to_is_read_from_its_root(api: KfpApi, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    runs = engine(api, tmp_path.as_uri())
    run_id = runs.start(WORK)
    assert runs.poll(run_id) is None
    release = release_of("s3://b/out/tiny/v-1")
    place = f"lrf-compress/{run_id}"
    store.put(f"{place}/validate/4f1c/verdicts", verdicts(passed=True))
    store.put(f"{place}/publish/77aa/release", release.model_dump_json().encode())
    api.end(run_id, "SUCCEEDED", analyze="SUCCEEDED", Publish="SUCCEEDED")
    end = runs.poll(run_id)
    assert end is not None
    assert end.outcome == "published"
    assert end.result is not None
    assert end.result.release == "s3://b/out/tiny/v-1"
    assert end.result.metrics["params_after"] == 50
    assert end.result.report == f"{api.host}/#/runs/details/{run_id}"


def test_a_gate_that_said_no_is_a_refusal_with_its_checks(api: KfpApi, tmp_path: Path) -> None:
    runs = engine(api, tmp_path.as_uri())
    run_id = runs.start(WORK)
    key = f"lrf-compress/{run_id}/validate/1/verdicts"
    open_store(str(tmp_path)).put(key, verdicts(passed=False))
    api.end(run_id, "SUCCEEDED", validate="SUCCEEDED", publish="SKIPPED")
    end = runs.poll(run_id)
    assert end is not None
    assert (end.outcome, end.reason) == (
        "refused",
        "the candidate failed the gate: accuracy_drop 3 points, limit <= 1 point",
    )


def test_without_a_root_the_page_of_the_run_is_what_is_known(api: KfpApi) -> None:
    runs = engine(api)
    run_id = runs.start(WORK)
    api.end(run_id, "SUCCEEDED", publish="SUCCEEDED")
    end = runs.poll(run_id)
    assert end is not None
    assert end.result is not None
    assert (end.result.release, end.result.report) == (None, f"{api.host}/#/runs/details/{run_id}")


def test_bad_input_is_not_tried_again_where_the_api_tells(api: KfpApi) -> None:
    runs = engine(api)
    run_id = runs.start(WORK)
    api.end(run_id, "FAILED", analyze="FAILED")
    [details] = api.runs[0]["run_details"]["task_details"]
    details["error"] = {"code": 2, "message": "Error (exit code 2)"}
    end = runs.poll(run_id)
    assert end is not None
    assert end.outcome == "bad_input"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_failed_may_be_tried_again(api: KfpApi, state: str) -> None:
    runs = engine(api)
    run_id = runs.start(WORK)
    api.end(run_id, state, analyze="SUCCEEDED", explore="FAILED")
    end = runs.poll(run_id)
    assert end is not None
    assert end.outcome == "failed"
    assert f"{state.lower()} in explore" in end.reason


def test_a_run_that_somebody_removed_may_be_tried_again(api: KfpApi) -> None:
    runs = engine(api)
    run_id = runs.start(WORK)
    api.runs.clear()
    end = runs.poll(run_id)
    assert end is not None
    assert (end.outcome, "was removed" in end.reason) == ("failed", True)
