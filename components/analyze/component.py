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
        The shards to explore, numbered from 0.
    """
    from pathlib import Path

    import lrf_core as lrf
    from components.step import step

    with step("analyze", spec, content=content) as asked:
        model = lrf.load_model(asked.model, asked.weights)
        data = lrf.open_data(asked.data, model, asked.seed)
        found = lrf.analyze(model, data, settings=asked.explore, seed=asked.seed)
        lrf.save_model(model, Path(baseline.path))
        found.save(analysis.path)
        baseline.metadata.update(name=found.model_name, digest=found.model_digest)
        analysis.metadata.update(layers=len(found.layers), eligible=len(found.eligible()))
        return list(range(len(found.shards)))
