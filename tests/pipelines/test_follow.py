"""Following a run: what is said on the way, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from kfp_server import RUN, Api, run_in

from lrf_core.errors import LrfError
from pipelines.submit import RunError, Submitted, attach, follow, state_of


@pytest.fixture
def submitted(api: Api) -> Submitted:
    api.created.append({"display_name": "lrf", "runtime_config": {}})
    return attach(RUN, api.host)


def followed(submitted: Submitted) -> tuple[bool, list[str]]:
    said: list[str] = []
    return follow(submitted, said.append, poll_s=0.01), said


def test_a_run_that_published_has_passed(api: Api, submitted: Submitted) -> None:
    api.states = [
        run_in("RUNNING", analyze="RUNNING"),
        run_in("RUNNING", analyze="SUCCEEDED", explore="RUNNING"),
        run_in("SUCCEEDED", analyze="SUCCEEDED", explore="SUCCEEDED", publish="SUCCEEDED"),
    ]
    passed, said = followed(submitted)
    assert passed
    assert said == [
        "analyze: running",
        "analyze: succeeded",
        "explore: running",
        "explore: succeeded",
        "publish: succeeded",
    ]
    assert state_of(submitted).phase == "published"


def test_shards_and_plans_are_counted_and_timed(api: Api, submitted: Submitted) -> None:
    def explore(state: str, **times: str) -> dict[str, Any]:
        return {"display_name": "explore", "state": state, **times}

    first = {"start_time": "2026-01-01T10:00:00Z", "end_time": "2026-01-01T10:01:00Z"}
    second = {"start_time": "2026-01-01T10:00:05Z", "end_time": "2026-01-01T10:02:10Z"}
    api.states = [
        run_in("RUNNING", explore("RUNNING"), explore("PENDING")),
        run_in("RUNNING", explore("SUCCEEDED", **first), explore("RUNNING")),
        run_in("RUNNING", explore("SUCCEEDED", **first), explore("SUCCEEDED", **second)),
        run_in("SUCCEEDED", validate="SUCCEEDED"),
    ]
    _, said = followed(submitted)
    assert said == [
        "explore: of 2: 1 pending, 1 running",
        "explore: of 2: 1 running, 1 succeeded",
        "explore: succeeded (all 2) in 2m 10s",
        "validate: succeeded",
    ]


@pytest.mark.parametrize("publish", [{}, {"publish": "SKIPPED"}])
def test_a_run_that_did_not_publish_has_not_passed(
    api: Api, submitted: Submitted, publish: dict[str, str]
) -> None:
    api.states = [run_in("SUCCEEDED", validate="SUCCEEDED", **publish)]
    assert not followed(submitted)[0]
    assert state_of(submitted).phase == "refused"


def test_a_run_that_failed_names_the_step(api: Api, submitted: Submitted) -> None:
    api.states = [run_in("FAILED", analyze="SUCCEEDED", explore="FAILED")]
    with pytest.raises(RunError, match=rf"failed in explore; .*/runs/details/{RUN}") as raised:
        followed(submitted)
    assert raised.value.exit_code == 1
    assert state_of(submitted).phase == "failed"


def test_one_failed_shard_of_two_is_a_failed_step(api: Api, submitted: Submitted) -> None:
    shards = [{"display_name": "explore", "state": state} for state in ("FAILED", "SUCCEEDED")]
    api.states = [run_in("FAILED", *shards)]
    with pytest.raises(RunError, match="failed in explore"):
        followed(submitted)


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (1, 1), (137, 1)])
def test_bad_input_is_told_from_other_failures_where_the_api_tells(
    api: Api, submitted: Submitted, code: int, expected: int
) -> None:
    error = {"code": 2, "message": f"main: Error (exit code {code})"}
    pod = {"display_name": "executor", "state": "FAILED", "error": error}
    api.states = [run_in("FAILED", pod, analyze="FAILED")]
    with pytest.raises(RunError) as raised:
        followed(submitted)
    assert raised.value.exit_code == expected


def test_a_run_that_was_canceled_has_failed(api: Api, submitted: Submitted) -> None:
    api.states = [run_in("CANCELED", analyze="SUCCEEDED")]
    with pytest.raises(RunError, match="the run canceled"):
        followed(submitted)


def test_a_run_that_waits_for_a_node_is_waiting(api: Api, submitted: Submitted) -> None:
    api.states = [run_in("PENDING", analyze="PENDING")]
    assert state_of(submitted).phase == "waiting"


def test_a_success_without_steps_is_no_pass(api: Api, submitted: Submitted) -> None:
    api.states = [{"state": "SUCCEEDED"}]
    with pytest.raises(LrfError, match="does not list its steps"):
        followed(submitted)


def test_an_api_that_stops_answering_is_asked_again(api: Api, submitted: Submitted) -> None:
    api.states = [run_in("RUNNING"), run_in("SUCCEEDED", publish="SUCCEEDED")]
    api.status = 500
    with pytest.raises(LrfError, match=rf"stopped answering.*the run goes on: .*{RUN}"):
        followed(submitted)
    api.status = 200
    assert followed(submitted)[0]
