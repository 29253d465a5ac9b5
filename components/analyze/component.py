"""Contract of the analyze component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def analyze(
    spec: str,
    baseline: dsl.Output[dsl.Model],
    analysis: dsl.Output[dsl.Artifact],
    content: str = "",
) -> list[int]:
    """Take inventory of a trained Keras model, and measure it.

    Reads the model and the data that the spec names, checks that they fit each other, and fixes
    the model that all later components read.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        baseline: The model as it was read: `model.keras` in a folder.
        analysis: Every layer with its cost and what can be done with it, and what the model
            scores (JSON).
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.

    Returns:
        The shards to explore, numbered from 1.
    """
    from pathlib import Path

    from components.step import step

    with step("analyze", spec, content=content) as settings:
        from lrf_core.models.load import save_model
        from lrf_core.run import steps

        model, data = steps.load_inputs(settings)
        result = steps.analyze(settings, model, data)
        save_model(model, Path(baseline.path))
        result.save(analysis.path)
        baseline.metadata.update(name=result.model_name, digest=result.model_digest)
        analysis.metadata.update(layers=len(result.layers), eligible=len(result.eligible()))
        return list(range(1, len(result.shards) + 1))
