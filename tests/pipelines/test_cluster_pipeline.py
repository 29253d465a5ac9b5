"""What a spec says of the cluster is in the compiled pipeline, for each step."""

from __future__ import annotations

from typing import Any

from cluster_specs import clusters
from google.protobuf import json_format
from hypothesis import HealthCheck, Phase, given, settings
from kfp.kubernetes import kubernetes_executor_config_pb2 as pb
from kfp_server import on_a_short_stack
from kubernetes.utils.quantity import parse_quantity

from lrf_core.spec import ClusterSpec, make_spec
from lrf_core.spec.cluster import STAGE_NAMES, TolerationSpec
from pipelines.compress import pipeline_for

# Making a failure smaller would take minutes.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
RUN_ID = {"name": "LRF_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}


class Compiled:
    """A pipeline as the API server reads it."""

    def __init__(self, cluster: dict[str, Any], cached: bool = False) -> None:
        spec = make_spec({"model": "m", "data": "d", "cluster": cluster})
        built = on_a_short_stack(pipeline_for, spec.effective_cluster(), cached)
        self.pipeline = json_format.MessageToDict(built.pipeline_spec)
        platform = json_format.MessageToDict(built.platform_spec)
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    def container(self, stage: str) -> dict[str, Any]:
        found = self.pipeline["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]
        assert isinstance(found, dict)
        return found

    def environment(self, stage: str) -> dict[str, str]:
        return {
            each["name"]: each.get("value", "") for each in self.container(stage).get("env", [])
        }

    def pod(self, stage: str) -> pb.KubernetesExecutorConfig:
        """By kfp's own definition, which refuses what it does not know."""
        config = self.platform[f"exec-{stage}"]
        return json_format.ParseDict(config, pb.KubernetesExecutorConfig())

    def tasks(self) -> dict[str, dict[str, Any]]:
        found = dict(self.pipeline["root"]["dag"]["tasks"])
        for component in self.pipeline["components"].values():
            found.update(component.get("dag", {}).get("tasks", {}))
        return {stage: found[stage] for stage in STAGE_NAMES}


def test_every_step_has_requests_and_no_cpu_limit() -> None:
    compiled = Compiled({})
    for stage in STAGE_NAMES:
        asked = compiled.container(stage)["resources"]
        assert asked["resourceMemoryRequest"] == asked["resourceMemoryLimit"]
        assert parse_quantity(asked["resourceCpuRequest"]) > 0
        assert "resourceCpuLimit" not in asked
        assert "accelerator" not in asked
    wanted = {
        name: compiled.container(name)["resources"]["resourceCpuRequest"]
        for name in ("finetune", "merge")
    }
    assert parse_quantity(wanted["finetune"]) > parse_quantity(wanted["merge"])


def test_a_stage_gets_what_is_asked_for_it_and_no_other() -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    finetune = {
        "cpu": 8,
        "cpu_limit": "16",
        "memory": "32Gi",
        "memory_limit": "48Gi",
        "gpus": 2,
        "scratch": "50Gi",
        "node_selector": {"accelerator": "h100"},
        "tolerations": [toleration],
        "timeout": "6h",
    }
    general = {"node_selector": {"pool": "batch"}, "timeout": "1h"}
    compiled = Compiled({**general, "stages": {"finetune": finetune}})
    resources = compiled.container("finetune")["resources"]
    assert {name: each for name, each in resources.items() if not isinstance(each, float)} == {
        "resourceCpuRequest": "8",
        "resourceCpuLimit": "16",
        "resourceMemoryRequest": "32Gi",
        "resourceMemoryLimit": "48Gi",
        "accelerator": {
            "resourceType": "nvidia.com/gpu",
            "type": "nvidia.com/gpu",
            "resourceCount": "2",
            "count": "2",
        },
    }
    pod, other = compiled.pod("finetune"), compiled.pod("validate")
    assert dict(pod.node_selector.labels) == {"accelerator": "h100", "pool": "batch"}
    assert dict(other.node_selector.labels) == {"pool": "batch"}
    [tolerated] = pod.tolerations
    assert json_format.MessageToDict(tolerated) == toleration
    assert not other.tolerations
    assert (pod.active_deadline_seconds, other.active_deadline_seconds) == (21600, 3600)
    [scratch] = pod.empty_dir_mounts
    assert (scratch.mount_path, scratch.size_limit) == ("/scratch", "50Gi")
    assert compiled.environment("finetune") == {"LRF_CACHE": "/scratch"}
    assert not other.empty_dir_mounts


def test_every_step_gets_variables_secrets_and_volumes() -> None:
    compiled = Compiled(
        {
            "image": "registry.example/lrf:1",
            "pull_policy": "Always",
            "pull_secrets": ["registry"],
            "env": {"AWS_ENDPOINT_URL": "http://minio:9000"},
            "pushgateway": "http://pushgateway:9091",
            "secrets": {"AWS_ACCESS_KEY_ID": "minio/user", "AWS_SECRET_ACCESS_KEY": "minio/key"},
            "secret_files": {"signing": "/etc/lrf/signing"},
            "config_maps": {"authority": "/etc/lrf/ca"},
            "claims": {"models": "/models"},
        },
    )
    for stage in STAGE_NAMES:
        assert compiled.container(stage)["image"] == "registry.example/lrf:1"
        assert compiled.environment(stage) == {
            "AWS_ENDPOINT_URL": "http://minio:9000",
            "LRF_PUSHGATEWAY": "http://pushgateway:9091",
        }
        pod = compiled.pod(stage)
        taken = {
            each.env_var: f"{secret.secret_name}/{each.secret_key}"
            for secret in pod.secret_as_env
            for each in secret.key_to_env
        }
        assert taken == {
            "AWS_ACCESS_KEY_ID": "minio/user",
            "AWS_SECRET_ACCESS_KEY": "minio/key",
        }
        assert [json_format.MessageToDict(each) for each in pod.field_path_as_env] == [RUN_ID]
        assert pod.image_pull_policy == "Always"
        assert [each.secret_name for each in pod.image_pull_secret] == ["registry"]
        [secret], [config], [claim] = pod.secret_as_volume, pod.config_map_as_volume, pod.pvc_mount
        assert (secret.secret_name, secret.mount_path) == ("signing", "/etc/lrf/signing")
        assert (config.config_map_name, config.mount_path) == ("authority", "/etc/lrf/ca")
        assert (claim.constant, claim.mount_path) == ("models", "/models")


def test_the_key_of_verdicts_is_for_the_steps_that_judge_and_publish() -> None:
    compiled = Compiled({"verdict_key": "verdicts/seal.key", "secret_files": {"other": "/other"}})
    for stage in STAGE_NAMES:
        secrets = {
            each.secret_name: each.mount_path for each in compiled.pod(stage).secret_as_volume
        }
        named = compiled.environment(stage).get("LRF_VERDICT_KEY_FILE")
        if stage in ("validate", "publish"):
            assert secrets == {"other": "/other", "verdicts": "/run/secrets/lrf-verdict-key"}
            assert named == "/run/secrets/lrf-verdict-key/seal.key"
        else:
            assert secrets == {"other": "/other"}
            assert named is None


def test_volumes_of_a_trainjob_are_mounted_in_its_step() -> None:
    job = {"image": "lrf-jax:1", "folder": "/models/handed", "claims": {"models": "/models"}}
    spec = make_spec({"model": "m", "data": "d", "finetune": {"workers": 2, "trainjob": job}})
    assert spec.effective_cluster().claims == {"models": "/models"}


def test_steps_are_tried_again_later_and_later() -> None:
    compiled = Compiled({"retries": {"count": 3, "wait": "1m", "within": "48h"}})
    for task in compiled.tasks().values():
        assert task["retryPolicy"] == {
            "maxRetryCount": 3,
            "backoffDuration": "60s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "172800s",
        }
    once = Compiled({"retries": {"count": 0}})
    assert not any("retryPolicy" in task for task in once.tasks().values())


def test_judging_and_publishing_are_never_cached() -> None:
    tasks = Compiled({}, cached=True).tasks()
    cached = {
        stage for stage, task in tasks.items() if task["cachingOptions"] == {"enableCache": True}
    }
    assert cached == {*STAGE_NAMES} - {"validate", "publish"}
    for stage in cached:
        parameters = tasks[stage]["inputs"]["parameters"]
        assert "content" in str(parameters["content"])


def test_what_is_cached_does_not_depend_on_the_run() -> None:
    compiled = Compiled({"pushgateway": "http://pushgateway:9091"}, cached=True)
    for stage, task in compiled.tasks().items():
        if task["cachingOptions"]:
            assert "{{$.pipeline_job" not in str(task) + str(compiled.environment(stage))


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(clusters())
def test_whatever_is_valid_compiles_to_what_kubernetes_takes(cluster: dict[str, Any]) -> None:
    asked = ClusterSpec.model_validate(cluster)
    compiled = Compiled(cluster)
    for stage in STAGE_NAMES:
        resources = compiled.container(stage)["resources"]
        quantities = {name: each for name, each in resources.items() if name.startswith("resource")}
        assert all(parse_quantity(quantity) > 0 for quantity in quantities.values())
        assert parse_quantity(resources["resourceCpuRequest"]) == parse_quantity(
            asked.stage(stage).cpu
        )
        pod = compiled.pod(stage)
        assert len(pod.tolerations) == len(asked.stage(stage).tolerations)
        assert all(isinstance(each, TolerationSpec) for each in asked.stage(stage).tolerations)
        assert dict(pod.node_selector.labels) == asked.stage(stage).node_selector
        assert len(pod.pvc_mount) == len(asked.claims)
        assert {**asked.env}.items() <= compiled.environment(stage).items()
