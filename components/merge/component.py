"""Contract of the merge component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def merge(
    spec: str,
    analysis: dsl.Input[dsl.Artifact],
    shards: dsl.Input[list[dsl.Dataset]],
    design_space: dsl.Output[dsl.Dataset],
    content: str = "",
) -> list[int]:
    """Join the design spaces of all shards to one, and say which plans to decompose by.

    Fewer plans than the spec asks for are there only where the design space has no more that
    differ.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        analysis: The Analysis of the baseline.
        shards: The design space of every shard.
        design_space: The shards as one design space (Parquet).
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.

    Returns:
        The plans to decompose by, numbered from 0.
    """
    from components.step import step

    with step("merge", spec, content=content) as settings:
        from lrf_core.artifacts import Analysis, DesignSpace
        from lrf_core.run import steps

        parts = [DesignSpace.load(part.path) for part in shards]
        space, numbers = steps.merge(settings, parts, Analysis.load(analysis.path))
        space.save(design_space.path)
        design_space.metadata.update(
            layers=len(space.layers), candidates=len(space.candidates), plans=len(numbers)
        )
        return numbers
