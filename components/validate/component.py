"""Contract of the validate component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    spec: str,
    baseline: dsl.Input[dsl.Model],
    candidate: dsl.Input[dsl.Model],
    analysis: dsl.Input[dsl.Artifact],
    design_space: dsl.Input[dsl.Dataset],
    plan: dsl.Input[dsl.Artifact],
    training: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    lineage: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
) -> bool:
    """Judge the candidate against the original by the limits of the gate, on test samples.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        baseline: The model that analyze fixed.
        candidate: The fine-tuned model.
        analysis: The Analysis of the baseline.
        design_space: The design space that the plan was chosen from.
        plan: The Plan that the candidate was built by.
        training: The FinetuneRecord of the candidate.
        verdict: Each check with its limit and what was measured (JSON).
        report: The whole run, for people to read.
        lineage: Where each artifact of the run comes from (JSON).
        metrics: Size, accuracy and latency, of the baseline and of the candidate.
        confusion: The candidate's confusion matrix; of more than 50 classes, the worst of them.

    Returns:
        Whether the candidate passed every check.
    """
    from pathlib import Path

    import lrf_core as lrf
    from components.step import step

    with step("validate", spec) as asked:
        from components.metrics import metrics_of
        from lrf_core.outputs import write_lineage
        from lrf_core.report import write_report

        original = lrf.load_model(baseline.path)
        data = lrf.open_data(asked.data, original, asked.seed)
        judged = lrf.validate(
            original,
            lrf.load_model(candidate.path),
            data,
            gate=asked.effective_gate(),
            seed=asked.seed,
        )
        judged.save(verdict.path)
        inventory = lrf.Analysis.load(analysis.path)
        space = lrf.DesignSpace.load(design_space.path)
        chosen = lrf.Plan.load(plan.path)
        record = lrf.FinetuneRecord.load(training.path)
        write_lineage(Path(lineage.path), inventory, space, chosen, record, judged)
        write_report(
            Path(report.path), analysis=inventory, plan=chosen, finetune=record, verdict=judged
        )
        verdict.metadata.update(passed=judged.passed, digest=judged.candidate_digest)
        for name, value in metrics_of(judged).items():
            metrics.log_metric(name, value)
        if judged.confusion:
            rows = [list(row) for row in judged.confusion.counts]
            confusion.log_confusion_matrix(list(judged.confusion.labels), rows)
        return judged.passed
