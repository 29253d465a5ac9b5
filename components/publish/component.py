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

    import lrf_core as lrf
    from components.step import step

    with step("publish", spec) as asked:
        from lrf_core.run.outputs import LINEAGE_FILE, REPORT_FILE
        from lrf_core.run.workflow import publish_by
        from lrf_core.stages import override_asked

        kept = {
            lrf.Analysis.file_name: analysis,
            lrf.DesignSpace.file_name: design_space,
            lrf.Plan.file_name: plan,
            lrf.FinetuneRecord.file_name: training,
            lrf.Verdict.file_name: verdict,
            REPORT_FILE: report,
            LINEAGE_FILE: lineage,
        }
        judged = lrf.Verdict.load(verdict.path)
        override = override_asked(judged, asked.publish.override)
        published = publish_by(
            asked,
            lrf.load_model(candidate.path),
            judged,
            lrf.Analysis.load(analysis.path),
            {name: Path(artifact.path) for name, artifact in kept.items()},
            override,
            asked.effective_gate(),
            run_id or None,
        )
        published.save(release.path)
        release.metadata.update(
            name=published.name, version=published.version, location=published.location
        )
        if published.override:
            release.metadata.update(overridden_by=published.override.by)
