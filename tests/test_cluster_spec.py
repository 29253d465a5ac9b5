"""The section `cluster` refuses what Kubernetes would refuse later, or worse, take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lrf_core.errors import SpecError
from lrf_core.spec import Spec, load_spec, make_spec

ROOT = Path(__file__).parents[1]
MINIMAL = {"model": "m.keras", "data": "d.npz"}


def spec_with(cluster: dict[str, Any]) -> Spec:
    return make_spec({**MINIMAL, "cluster": cluster})


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"imag": "x"}, "unknown setting 'cluster.imag' (did you mean 'image'?)"),
        ({"image": "lrf:1 --privileged"}, "cluster.image"),
        ({"stages": {"train": {}}}, "'decompose', 'finetune'"),
        ({"stages": {"finetune": {"cpu": "two"}}}, "stages.finetune.cpu"),
        ({"stages": {"finetune": {"cpu": 0}}}, "stages.finetune.cpu"),
        ({"stages": {"finetune": {"cpu": "0.0001"}}}, "stages.finetune.cpu"),
        ({"stages": {"finetune": {"memory": "8GB"}}}, "stages.finetune.memory"),
        ({"stages": {"finetune": {"memory": 8}}}, "stages.finetune.memory"),
        ({"stages": {"finetune": {"gpus": -1}}}, "stages.finetune.gpus"),
        ({"stages": {"finetune": {"gpu": "nvidia"}}}, "stages.finetune.gpu"),
        (
            {"stages": {"finetune": {"memory": "8Gi", "memory_limit": "8G"}}},
            "memory_limit 8G is below the request, 8Gi",
        ),
        (
            {"stages": {"finetune": {"cpu": "1", "cpu_limit": "999m"}}},
            "cpu_limit 999m is below the request, 1",
        ),
        ({"tolerations": [{"operator": "Exists", "value": "x"}]}, "Exists has no value"),
        ({"tolerations": [{"value": "x"}]}, "without a key needs operator: Exists"),
        ({"tolerations": [{"key": "k", "seconds": 3}]}, "seconds belong to effect: NoExecute"),
        ({"node_selector": {"a b": "c"}}, "cluster.node_selector"),
        ({"node_selector": {"a": "c" * 64}}, "cluster.node_selector"),
        ({"env": {"A-B": "x"}}, "cluster.env"),
        ({"secrets": {"A": "minio"}}, "cluster.secrets.A"),
        ({"secrets": {"A": "minio/key"}, "env": {"A": "x"}}, "variable A is asked for 2 times"),
        ({"env": {"LRF_RUN_ID": "x"}}, "variable LRF_RUN_ID is asked for 2 times"),
        ({"secret_files": {"a": "relative"}}, "cluster.secret_files.a"),
        ({"secret_files": {"a": "/etc/../etc"}}, "an absolute path below /"),
        ({"claims": {"a": "/"}}, "an absolute path below /"),
        ({"claims": {"a.b": "/a"}}, "cluster.claims"),
        ({"verdict_key": "no-key-in-it"}, "cluster.verdict_key"),
        ({"verdict_key": "a/../b"}, "cluster.verdict_key"),
        ({"verdict_key": "a/k", "claims": {"a": "/x"}}, "volume a is asked for 2 times"),
        (
            {"verdict_key": "a/k", "claims": {"b": "/run/secrets/lrf-verdict-key"}},
            "mount /run/secrets/lrf-verdict-key is asked for 2 times",
        ),
        (
            {"verdict_key": "a/k", "env": {"LRF_VERDICT_KEY_FILE": "/k"}},
            "variable LRF_VERDICT_KEY_FILE is asked for 2 times",
        ),
        ({"claims": {"a": "/x"}, "config_maps": {"a": "/y"}}, "volume a is asked for 2 times"),
        ({"claims": {"a": "/x", "b": "/x/"}}, "mount /x is asked for 2 times"),
        (
            {"claims": {"a": "/scratch"}, "stages": {"explore": {"scratch": "1Gi"}}},
            "mount /scratch is asked for 2 times",
        ),
        ({"pipeline_root": "s3://key:secret@bucket/x"}, "cluster.pipeline_root"),
        ({"pipeline_root": "/data"}, "cluster.pipeline_root"),
        ({"pushgateway": "http://user:word@gateway"}, "cluster.pushgateway"),
        ({"retries": {"count": 1000}}, "cluster.retries.count"),
        ({"timeout": "forever"}, "write a duration such as 30s"),
        ({"service_account": "a/b"}, "cluster.service_account"),
    ],
)
def test_hostile_settings_are_one_clear_line(cluster: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_with(cluster)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "cluster",
    [
        {"env": {"AWS_SECRET_ACCESS_KEY": "hunter2"}},
        {"env": {"MLFLOW_TRACKING_PASSWORD": "hunter2"}},
        {"env": {"LRF_KFP_TOKEN": "hunter2"}},
        {"env": {"A": ["hunter2"]}},
        {"secrets": {"AWS_SECRET_ACCESS_KEY": "hunter2/is my key"}},
        {"secrets": {"AWS_SECRET_ACCESS_KEY": {"value": "hunter2"}}},
    ],
)
def test_a_secret_put_there_by_mistake_is_refused_and_not_shown(cluster: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        spec_with(cluster)
    assert "hunter2" not in str(caught.value)


def test_names_and_paths_of_secrets_may_be_plain() -> None:
    env = {"LRF_S3_SECRET": "minio-keys", "KUBEFLOW_REGISTRY_TOKEN_FILE": "/etc/token"}
    assert spec_with({"env": env}).cluster.env == env


def test_a_limit_alone_is_the_request_too() -> None:
    limits = {"cpu_limit": "500m", "memory_limit": "1Gi"}
    asked = spec_with({"stages": {"finetune": limits}}).cluster.stage("finetune")
    assert (asked.cpu, asked.memory) == ("500m", "1Gi")


def test_claims_of_a_trainjob_that_do_not_fit_those_of_the_cluster() -> None:
    job = {"image": "i", "folder": "/models/f", "claims": {"models": "/models"}}
    settings = {**MINIMAL, "finetune": {"workers": 2, "trainjob": job}}
    with pytest.raises(SpecError, match="mount /models is asked for 2 times"):
        make_spec({**settings, "cluster": {"claims": {"others": "/models"}}})


def test_a_spec_goes_through_json_and_back() -> None:
    cluster = {"stages": {"finetune": {"cpu": 2, "timeout": "1h"}}, "claims": {"m": "/m/"}}
    spec = spec_with(cluster)
    assert make_spec(json.loads(spec.model_dump_json())) == spec


def test_the_example_is_a_spec() -> None:
    spec = load_spec(ROOT / "examples" / "cluster" / "spec.yaml")
    assert spec.publish.to is not None
    assert spec.publish.to.startswith("s3://")
    assert spec.cluster.stage("finetune").gpus
