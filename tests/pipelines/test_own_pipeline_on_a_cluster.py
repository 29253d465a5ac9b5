"""A task of somebody's own pipeline gets image, resources and keys; kfp compiles and loads it."""

from pathlib import Path

import yaml
from kfp import compiler, components

from examples.pipeline import own_pipeline
from lrf_core.spec import ClusterSpec
from pipelines.cluster import with_cluster_spec


def test_the_example_compiles_and_loads(tmp_path: Path) -> None:
    target = tmp_path / "digits.yaml"
    compiler.Compiler().compile(own_pipeline.digits, str(target))

    loaded = components.load_component_from_file(str(target))
    assert set(loaded.component_spec.inputs) == {"store", "params_reduction", "max_accuracy_drop"}
    pipeline = yaml.safe_load(target.read_text())
    tasks = pipeline["root"]["dag"]["tasks"]
    assert set(tasks) == {"train", "compress-model", "condition-1"}
    condition = tasks["condition-1"]["triggerPolicy"]["condition"]
    assert "compress-model-Output'] == true" in condition
    given = tasks["compress-model"]["inputs"]["artifacts"]
    assert given["model"]["taskOutputArtifact"] == {
        "outputArtifactKey": "model",
        "producerTask": "train",
    }


def test_image_resources_and_keys_are_set_on_the_task(tmp_path: Path) -> None:
    from kfp import dsl

    from components.compress_model import compress_model

    cluster = ClusterSpec.model_validate(
        {
            "image": "registry.example/lrf:1",
            "stages": {"compress_model": {"cpu": "6", "memory": "20Gi"}},
            "secrets": {"AWS_ACCESS_KEY_ID": "lrf-s3/accesskey"},
        }
    )

    @dsl.pipeline(name="own")
    def own() -> None:
        trained = own_pipeline.train()
        task = compress_model(
            model=trained.outputs["model"], data=trained.outputs["data"], store="s3://models/net"
        )
        with_cluster_spec(task, "compress_model", cluster)

    compiler.Compiler().compile(own, str(tmp_path / "own.yaml"))
    pipeline, platform = yaml.safe_load_all((tmp_path / "own.yaml").read_text())
    container = pipeline["deploymentSpec"]["executors"]["exec-compress-model"]["container"]
    assert container["image"] == "registry.example/lrf:1"
    assert container["resources"]["resourceMemoryRequest"] == "20Gi"
    assert container["resources"]["resourceCpuRequest"] == "6"
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (secret,) = settings["exec-compress-model"]["secretAsEnv"]
    assert secret["secretName"] == "lrf-s3"
