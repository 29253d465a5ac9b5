"""Contract of the analyze component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def analyze(
    spec: str,
    baseline: dsl.Output[dsl.Model],
    analysis: dsl.Output[dsl.Artifact],
    content: str = "",
    model: dsl.Input[dsl.Model] = None,
    data: dsl.Input[dsl.Dataset] = None,
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
        model: The trained model: a `.keras` or `.h5` file by any name, or a folder with one.
            Default: what the spec names.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
            Default: what the spec names.

    Returns:
        The shards to explore, numbered from 1.
    """
    from pathlib import Path

    from components.step import step

    inputs = {"model": model and model.path, "data": data and data.path}
    with step("analyze", spec, content=content, inputs=inputs) as settings:
        from lrf_core.models.load import save_model
        from lrf_core.run import steps

        network, samples = steps.load_inputs(settings)
        result = steps.analyze(settings, network, samples)
        save_model(network, Path(baseline.path))
        result.save(analysis.path)
        baseline.metadata.update(name=result.model_name, digest=result.model_digest)
        analysis.metadata.update(layers=len(result.layers), eligible=len(result.eligible()))
        return list(range(1, len(result.shards) + 1))
