"""Contract of the decompose component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decompose(
    spec: str,
    baseline: dsl.Input[dsl.Model],
    shards: dsl.Input[list[dsl.Dataset]],
    design_space: dsl.Output[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
    factorized: dsl.Output[dsl.Model],
) -> None:
    """Choose one candidate per layer for the goal, and build the factorized model.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        baseline: The model that analyze fixed.
        shards: The design space of every shard.
        design_space: The shards as one design space (Parquet).
        plan: What happens to each layer, and the predicted totals (JSON).
        factorized: The model by this plan, not yet fine-tuned: `model.keras` in a folder.
    """
    from pathlib import Path

    import lrf_core as lrf
    from components.step import step

    with step("decompose", spec) as asked:
        from lrf_core.exploration.merge import merged

        model = lrf.load_model(baseline.path)
        data = lrf.open_data(asked.data, model, asked.seed)
        space = merged([lrf.DesignSpace.load(part.path) for part in shards])
        space.save(design_space.path)
        chosen, network = lrf.decompose(
            model,
            data,
            [space],
            asked.effective_goal(),
            settings=asked.effective_decompose(),
            seed=asked.seed,
        )
        chosen.save(plan.path)
        lrf.save_model(network, Path(factorized.path))
        plan.metadata.update(
            policy=chosen.policy,
            replaced=len(chosen.replaced()),
            params=chosen.after.params,
            macs=chosen.after.macs,
        )
        factorized.metadata.update(digest=chosen.factorized_digest)
