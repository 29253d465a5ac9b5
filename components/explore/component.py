"""Contract of the explore component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def explore(
    spec: str,
    shard: int,
    baseline: dsl.Input[dsl.Model],
    analysis: dsl.Input[dsl.Artifact],
    design_space: dsl.Output[dsl.Dataset],
    content: str = "",
    data: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Score every candidate (layer, method, ranks) of one shard on calibration samples.

    With `explore.cache` in the spec (s3://bucket/prefix), what was scored before a step was killed
    or retried is not scored again.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        shard: Which of the shards that analyze made, from 1.
        baseline: The model that analyze fixed.
        analysis: The Analysis of it.
        design_space: The scored candidates of the shard (Parquet).
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
            Default: what the spec names.
    """
    from components.step import step

    inputs = {"data": data and data.path}
    with step("explore", spec, shard, content=content, inputs=inputs) as settings:
        from lrf_core.artifacts import Analysis
        from lrf_core.exploration.shards import Shard
        from lrf_core.run import steps

        model, samples = steps.load_inputs(settings, baseline.path)
        inventory = Analysis.load(analysis.path)
        part = Shard(shard, len(inventory.shards))
        space = steps.explore(settings, model, samples, inventory, part)
        space.save(design_space.path)
        design_space.metadata.update(layers=len(space.layers), candidates=len(space.candidates))
