"""Contract of the validate component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    spec: str,
    baseline: dsl.Input[dsl.Model],
    candidates: dsl.Input[list[dsl.Model]],
    analysis: dsl.Input[dsl.Artifact],
    design_space: dsl.Input[dsl.Dataset],
    plans: dsl.Input[list[dsl.Artifact]],
    trainings: dsl.Input[list[dsl.Artifact]],
    candidate: dsl.Output[dsl.Model],
    plan: dsl.Output[dsl.Artifact],
    training: dsl.Output[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    verdicts: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    lineage: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    content: str = "",
    data: dsl.Input[dsl.Dataset] = None,
) -> bool:
    """Judge all candidates against the original by the limits of the gate, on test samples.

    The smallest that passes is picked. If none does, the one with the fewest failed checks is,
    of equals the one that loses the least accuracy: to be shown, not to be published.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        baseline: The model that analyze fixed.
        candidates: The fine-tuned model of each plan.
        analysis: The Analysis of the baseline.
        design_space: The design space that the plans were chosen from.
        plans: The Plan of each candidate.
        trainings: The FinetuneRecord of each candidate.
        candidate: The candidate that was picked.
        plan: The Plan of the candidate that was picked.
        training: The FinetuneRecord of the candidate that was picked.
        verdict: On the candidate that was picked, each check with its limit and what was measured
            (JSON).
        verdicts: On every candidate, by the number of its plan (JSON).
        report: The whole run, for people to read.
        lineage: Where each artifact of the run comes from (JSON).
        metrics: Size, accuracy and latency, of the baseline and of the candidate that was picked.
        confusion: Its confusion matrix; of more than 50 classes, the worst of them.
        content: What the inputs contained when the run was submitted (a digest); "" where that
            is not known. Results are taken over only where it is the same.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
            Default: what the spec names.

    Returns:
        Whether the candidate that was picked passed every check.
    """
    from pathlib import Path

    from components.step import step

    inputs = {"data": data and data.path}
    with step("validate", spec, content=content, inputs=inputs) as settings:
        from components.metrics import log_judgement
        from lrf_core.artifacts import Analysis, DesignSpace, FinetuneRecord, Plan, Verdicts
        from lrf_core.models.load import load_model, save_model
        from lrf_core.run import steps
        from lrf_core.stages import by_number

        original, samples = steps.load_inputs(settings, baseline.path)
        trained = [
            steps.Candidate(*parts)
            for parts in by_number(
                [Plan.load(each.path) for each in plans],
                [FinetuneRecord.load(each.path) for each in trainings],
                [load_model(each.path) for each in candidates],
            )
        ]
        judgement = steps.judge(settings, original, trained, samples)
        selected, result = trained[judgement.selected], judgement.verdict
        save_model(selected.model, Path(candidate.path))
        selected.plan.save(plan.path)
        selected.finetune.save(training.path)
        result.save(verdict.path)
        all_verdicts = [outcome.verdict for outcome in judgement.outcomes]
        Verdicts.of(all_verdicts, judgement.selected).save(verdicts.path)
        steps.record_judgement(
            settings,
            judgement,
            Analysis.load(analysis.path),
            DesignSpace.load(design_space.path),
            Path(lineage.path),
            Path(report.path),
        )
        log_judgement(result, candidate, verdict, metrics, confusion)
        candidate.metadata.update(plan=selected.plan.number)
        return result.passed
