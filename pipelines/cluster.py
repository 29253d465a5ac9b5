"""What a spec says of the cluster, compiled into a step.

Everything is compiled in, nothing is a pipeline parameter: a spec is submitted with its own
compiled pipeline, and what a step asks for can be read in it.
"""

from __future__ import annotations

from kfp import dsl, kubernetes

from lrf_core.secrets.verdict_key import KEY_FILE_SETTING
from lrf_core.spec import ClusterSpec
from lrf_core.spec.cluster import (
    PUSHGATEWAY,
    RUN_ID,
    SCRATCH,
    SEALING,
    VERDICT_KEY,
    StageName,
    StageSpec,
    TolerationSpec,
)

# The API server labels every pod of a run with the run's id. (Placeholders of kfp in environment
# variables are resolved by no backend.)
_RUN_ID_LABEL = "metadata.labels['pipeline/runid']"


def with_cluster_spec(
    task: dsl.PipelineTask, stage: StageName, cluster: ClusterSpec
) -> dsl.PipelineTask:
    """Set all that the cluster section says of a stage on its task; returns the task."""
    asked = cluster.stage(stage)
    if cluster.image:
        task.set_container_image(cluster.image)
    _requests(task, asked)
    _placement(task, asked)
    _environment(task, cluster, asked)
    _mounts(task, cluster, asked)
    if cluster.verdict_key and stage in SEALING:
        secret, _, key = cluster.verdict_key.partition("/")
        kubernetes.use_secret_as_volume(task, secret, VERDICT_KEY)
        task.set_env_variable(KEY_FILE_SETTING, f"{VERDICT_KEY}/{key}")
    if cluster.pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.pull_policy)
    if cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.pull_secrets))
    if asked.timeout:
        kubernetes.set_timeout(task, round(asked.timeout))
    retries = cluster.retries
    if retries.count:
        task.set_retry(
            retries.count,
            backoff_duration=f"{round(retries.wait)}s",
            backoff_factor=retries.factor,
            backoff_max_duration=f"{round(retries.within)}s",
        )
    return task


def _requests(task: dsl.PipelineTask, asked: StageSpec) -> None:
    task.set_cpu_request(asked.cpu).set_memory_request(asked.memory)
    task.set_memory_limit(asked.memory_limit)
    if asked.cpu_limit:
        task.set_cpu_limit(asked.cpu_limit)
    if asked.gpus:
        task.set_accelerator_type(asked.gpu).set_accelerator_limit(asked.gpus)


def _placement(task: dsl.PipelineTask, asked: StageSpec) -> None:
    for key, value in asked.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in asked.tolerations:
        _tolerate(task, toleration)


def _tolerate(task: dsl.PipelineTask, toleration: TolerationSpec) -> None:
    kubernetes.add_toleration(
        task,
        key=toleration.key,
        operator=toleration.operator,
        value=toleration.value,
        effect=toleration.effect,
        toleration_seconds=toleration.seconds,
    )


def _environment(task: dsl.PipelineTask, cluster: ClusterSpec, asked: StageSpec) -> None:
    # In the environment's own definition, not in `env`: what is in there decides what is cached.
    kubernetes.use_field_path_as_env(task, RUN_ID, _RUN_ID_LABEL)
    given = dict(cluster.env)
    if cluster.pushgateway:
        given[PUSHGATEWAY] = cluster.pushgateway
    if asked.scratch:
        given.setdefault("LRF_CACHE", SCRATCH)
    for name, value in given.items():
        task.set_env_variable(name, value)
    for name, source in cluster.secrets.items():
        secret, _, key = source.partition("/")
        kubernetes.use_secret_as_env(task, secret, {key: name})


def _mounts(task: dsl.PipelineTask, cluster: ClusterSpec, asked: StageSpec) -> None:
    for name, path in cluster.secret_files.items():
        kubernetes.use_secret_as_volume(task, name, path)
    for name, path in cluster.config_maps.items():
        kubernetes.use_config_map_as_volume(task, name, path)
    for name, path in cluster.claims.items():
        kubernetes.mount_pvc(task, name, path)
    if asked.scratch:
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH, size_limit=asked.scratch)
