"""Contract of the decompose component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decompose(
    spec: str,
    number: int,
    baseline: dsl.Input[dsl.Model],
    design_space: dsl.Input[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
    factorized: dsl.Output[dsl.Model],
    content: str = "",
    data: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Choose one candidate per layer for the goal, and build the factorized model.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        number: Which of the plans for the goal, from 0, the one that the goal asks for.
        baseline: The model that analyze fixed.
        design_space: The design space of all layers.
        plan: What happens to each layer, and the predicted totals (JSON).
        factorized: The model by this plan, not yet fine-tuned: `model.keras` in a folder.
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
            Default: what the spec names.
    """
    from pathlib import Path

    from components.step import step

    inputs = {"data": data and data.path}
    with step("decompose", spec, number, content=content, inputs=inputs) as settings:
        from lrf_core.artifacts import DesignSpace
        from lrf_core.models.load import save_model
        from lrf_core.run import steps

        model, samples = steps.load_inputs(settings, baseline.path)
        space = DesignSpace.load(design_space.path)
        result, network = steps.prepare(settings, model, samples, space).build(number)
        result.save(plan.path)
        save_model(network, Path(factorized.path))
        plan.metadata.update(
            number=result.number,
            policy=result.policy,
            replaced=len(result.replaced()),
            params=result.after.params,
            macs=result.after.macs,
        )
        factorized.metadata.update(digest=result.factorized_digest)
