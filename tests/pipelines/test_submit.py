"""Submitting: what the API is given, and that no run is started twice."""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import Any

import pytest
from kfp_server import RUN, SPEC, Api, on_a_short_stack, run_in
from seaweed import Seaweed

from lrf_core.errors import SpecError
from lrf_core.spec import Spec, make_spec
from lrf_core.storage import open_store
from pipelines.submit import TOKEN, PipelineApiError, attach, state_of
from pipelines.submit import submit as submit_there

submit = partial(on_a_short_stack, submit_there)


def test_a_run_is_created_with_the_spec_and_the_pipeline(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN, "the-token")
    submitted = submit(SPEC, api.host + "/", None, "lrf")
    [created] = api.created
    parameters = created["runtime_config"]["parameters"]
    assert make_spec(json.loads(parameters["spec"])) == SPEC
    assert parameters["content"] == ""
    assert created["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "lrf-compress"
    assert created["experiment_id"] == "e1"
    assert api.tokens == {"Bearer the-token"}
    assert "the-token" not in json.dumps(created)
    assert submitted.url == f"{api.host}/#/runs/details/{RUN}"
    assert capsys.readouterr().out == ""


def test_what_the_spec_says_of_the_cluster_is_submitted_with_it(api: Api) -> None:
    cluster = {
        "image": "registry.example/lrf:1",
        "service_account": "compressor",
        "pipeline_root": "s3://pipelines/lrf",
        "secrets": {"AWS_ACCESS_KEY_ID": "minio/accesskey"},
    }
    submit(make_spec({**SPEC.model_dump(), "cluster": cluster}), api.host, None, "lrf")
    [created] = api.created
    assert created["service_account"] == "compressor"
    assert created["runtime_config"]["pipeline_root"] == "s3://pipelines/lrf"
    assert "cluster" not in json.loads(created["runtime_config"]["parameters"]["spec"])
    executors = created["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert {each["container"]["image"] for each in executors.values()} == {cluster["image"]}
    platform = created["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    assert len(platform["deploymentSpec"]["executors"]) == len(executors)
    assert "accesskey" in json.dumps(platform)


def test_arguments_change_with_the_content_and_with_nothing_else(
    api: Api, s3_settings: Seaweed
) -> None:
    prefix = f"s3://{s3_settings.bucket}/submitted"
    inputs = {"model": f"{prefix}/model.keras", "data": f"{prefix}/data.npz"}
    store = open_store(prefix)
    store.put("data.npz", b"data")

    def submitted(model: bytes, **cluster: Any) -> tuple[dict[str, str], bool]:
        store.put("model.keras", model)
        spec = make_spec({**inputs, "publish": {"to": prefix}, "cluster": cluster})
        submit(spec, api.host, None, "lrf", run_name=f"run {len(api.created)}")
        created = api.created[-1]
        pipeline = created["pipeline_spec"]["pipeline_spec"]
        caching = pipeline["root"]["dag"]["tasks"]["analyze"]["cachingOptions"]
        return created["runtime_config"]["parameters"], caching == {"enableCache": True}

    first, cached = submitted(b"one")
    assert cached
    assert len(first["content"]) == 64
    assert submitted(b"one", stages={"finetune": {"memory": "64Gi"}}) == (first, True)
    other, _ = submitted(b"two")
    assert other["content"] != first["content"]
    assert other["spec"] == first["spec"]
    assert submitted(b"one", cache=False) == ({**first, "content": ""}, False)


def test_submitted_again_while_it_runs_no_second_run_is_started(api: Api) -> None:
    api.states = [run_in("RUNNING", analyze="RUNNING")]
    first = submit(SPEC, api.host, None, "lrf")
    again = submit(SPEC, api.host, None, "lrf")
    assert (first.found, again.found) == (False, True)
    assert again.run_id == first.run_id
    assert len(api.created) == 1


def test_once_it_has_ended_the_same_may_be_submitted_anew(api: Api) -> None:
    submit(SPEC, api.host, None, "lrf")
    api.states = [run_in("FAILED")]
    assert submit(SPEC, api.host, None, "lrf").run_id == f"{RUN}-2"


def test_of_runs_with_a_given_name_there_is_only_one(api: Api) -> None:
    submit(SPEC, api.host, None, "lrf", run_name="digits-7a2f")
    for state in ("RUNNING", "SUCCEEDED", "FAILED"):
        api.states = [run_in(state)]
        again = submit(SPEC, api.host, None, "lrf", run_name="digits-7a2f")
        assert (again.run_id, again.found) == (RUN, True)
    assert submit(SPEC, api.host, None, "lrf", run_name="digits-81c0").run_id == f"{RUN}-2"


def test_another_spec_is_another_run(api: Api) -> None:
    other = Spec.model_validate({**SPEC.model_dump(), "seed": 1})
    submit(SPEC, api.host, None, "lrf")
    submit(other, api.host, None, "lrf")
    assert len({created["display_name"] for created in api.created}) == 2


def test_a_run_is_found_by_its_id(api: Api) -> None:
    api.states = [run_in("RUNNING", analyze="RUNNING")]
    submit(SPEC, api.host, None, "lrf")
    assert state_of(attach(RUN, api.host)).phase == "running"
    with pytest.raises(PipelineApiError, match=r"does not show the run .*no such run"):
        state_of(attach("another", api.host))


def test_a_spec_that_no_parameter_holds_is_not_submitted(api: Api) -> None:
    layers = [f"block{number}_conv_of_a_long_name" for number in range(500)]
    spec = make_spec({**SPEC.model_dump(), "explore": {"layers": layers}})
    with pytest.raises(SpecError, match=r"the spec has 1\d,\d{3} characters.*10,000.*patterns"):
        submit(spec, api.host, None, "lrf")
    assert api.created == []


def test_a_host_that_is_down_is_no_bad_input() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        PipelineApiError, match=f"cannot reach .*127.0.0.1:{port}.*refused"
    ) as raised:
        submit(SPEC, f"http://127.0.0.1:{port}", None, "lrf")
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(("status", "told"), [(401, TOKEN), (404, "check --host")])
def test_a_host_that_refuses_is_bad_input(api: Api, status: int, told: str) -> None:
    api.status = status
    with pytest.raises(PipelineApiError, match=told):
        submit(SPEC, api.host, None, "lrf")


def test_a_host_needs_a_scheme() -> None:
    with pytest.raises(PipelineApiError, match="must start with http"):
        submit(SPEC, "localhost:8888", None, "lrf")


def test_a_cluster_run_must_say_where_to_publish() -> None:
    spec = SPEC.model_copy(update={"publish": Spec.model_fields["publish"].default})
    with pytest.raises(SpecError, match=r"publish\.to"):
        submit(spec, "http://localhost:1", None, "lrf")
