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
    """
    from pathlib import Path

    import lrf_core as lrf
    from components.step import step

    with step("decompose", spec, number, content=content) as asked:
        model = lrf.load_model(baseline.path)
        data = lrf.open_data(asked.data, model, asked.seed)
        chosen, network = lrf.decompose(
            model,
            data,
            [lrf.DesignSpace.load(design_space.path)],
            asked.effective_goal(),
            settings=asked.effective_decompose(),
            seed=asked.seed,
            plan=number,
        )
        chosen.save(plan.path)
        lrf.save_model(network, Path(factorized.path))
        plan.metadata.update(
            number=chosen.number,
            policy=chosen.policy,
            replaced=len(chosen.replaced()),
            params=chosen.after.params,
            macs=chosen.after.macs,
        )
        factorized.metadata.update(digest=chosen.factorized_digest)
