"""Contract of the publish component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    spec: str,
    candidate: dsl.Input[dsl.Model],
    analysis: dsl.Input[dsl.Artifact],
    design_space: dsl.Input[dsl.Dataset],
    plan: dsl.Input[dsl.Artifact],
    training: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    lineage: dsl.Input[dsl.Artifact],
    release: dsl.Output[dsl.Artifact],
    run_id: str = "",
) -> None:
    """Publish a candidate that passed the gate as an immutable release in object storage.

    Refuses a candidate that its verdict is not about, that was judged by other limits than the
    spec's, or that did not pass, unless the spec's `publish.override` names this candidate and what
    it failed. A run that was killed is completed by running it again.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
        candidate: The candidate that validate picked.
        analysis: The Analysis of the baseline, kept with the release.
        design_space: The design space that the plans were chosen from, kept with the release.
        plan: The Plan that the candidate was built by, kept with the release.
        training: The FinetuneRecord of the candidate, kept with the release.
        verdict: The Verdict on the candidate, kept with the release.
        report: The report of the run, kept with the release.
        lineage: Where each artifact of the run comes from, kept with the release.
        release: The manifest of what was published, and where (JSON).
        run_id: The id of the pipeline run, kept in the model registries.
    """
    from pathlib import Path

    from components.step import step

    with step("publish", spec) as settings:
        from lrf_core.artifacts import Analysis, Verdict
        from lrf_core.models.load import load_model
        from lrf_core.run import steps
        from lrf_core.run.outputs import attachments
        from lrf_core.stages import requested_override

        judged = Verdict.load(verdict.path)
        result = steps.publish(
            settings.in_own_folder(),
            load_model(candidate.path),
            judged,
            Analysis.load(analysis.path),
            attachments(
                analysis=Path(analysis.path),
                design_space=Path(design_space.path),
                plan=Path(plan.path),
                finetune=Path(training.path),
                verdict=Path(verdict.path),
                report=Path(report.path),
                lineage=Path(lineage.path),
            ),
            requested_override(judged, settings.publish.override),
            gate=settings.effective_gate(),
            run_id=run_id or None,
        )
        result.save(release.path)
        release.metadata.update(name=result.name, version=result.version, location=result.location)
        if result.override:
            release.metadata.update(overridden_by=result.override.by)
