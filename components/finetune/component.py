"""Contract of the finetune component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune(
    spec: str,
    baseline: dsl.Input[dsl.Model],
    factorized: dsl.Input[dsl.Model],
    candidate: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    content: str = "",
    data: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Train the factorized model once, with the original as its teacher.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        baseline: The model that analyze fixed.
        factorized: The model that decompose built.
        candidate: The fine-tuned model: `model.keras` in a folder.
        training: The learning curve, and how the model was trained (JSON).
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
            Default: what the spec names.
    """
    from pathlib import Path

    from components.step import step

    part = factorized.metadata.get("digest", "")[:12]
    inputs = {"data": data and data.path}
    with step("finetune", spec, part, content=content, inputs=inputs) as settings:
        from lrf_core.models.load import load_model, save_model
        from lrf_core.run import steps

        teacher, samples = steps.load_inputs(settings, baseline.path)
        model, record = steps.finetune(settings, load_model(factorized.path), teacher, samples)
        save_model(model, Path(candidate.path))
        record.save(training.path)
        candidate.metadata.update(digest=record.after_digest)
        training.metadata.update(best_epoch=record.best_epoch, steps=record.steps)
