"""Contract of the compress_model component: the whole way in one task."""

from typing import Optional

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def compress_model(
    model: dsl.Input[dsl.Model],
    data: dsl.Input[dsl.Dataset],
    store: str,
    candidate: dsl.Output[dsl.Model],
    release: dsl.Output[dsl.Model],
    analysis: dsl.Output[dsl.Artifact],
    design_space: dsl.Output[dsl.Dataset],
    plan: dsl.Output[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    release_name: str = "",
    max_accuracy_drop: Optional[float] = None,  # noqa: UP045
    params_reduction: Optional[float] = None,  # noqa: UP045
    macs_reduction: Optional[float] = None,  # noqa: UP045
    latency_reduction: Optional[float] = None,  # noqa: UP045
    epochs: Optional[int] = None,  # noqa: UP045
    methods: Optional[list] = None,  # type: ignore[type-arg]  # noqa: UP045
    spec: str = "",
) -> bool:
    """Compress a trained Keras model, fine-tune it, judge it, and publish it if it passes.

    One task does all: for models that compress within an hour or so. A model that the gate refuses
    is no error: the output is false then, nothing is published, and the report says why.

    Args:
        model: The trained model: a `.keras` or `.h5` file by any name, or a folder with one.
        data: Labelled samples: an `.npz` file, class folders of images, or an archive of them.
        store: Where releases go, e.g. `s3://models/vision`.
        candidate: The compressed model, whether it passed or not: `model.keras` in a folder.
        release: What was published, to be served from the artifact's URI: a SavedModel in a
            numbered folder; its address in the store is `location` in the metadata. Without content
            if nothing was published.
        analysis: Every layer with its cost and what can be done with it (JSON).
        design_space: The scored candidates of every layer (Parquet).
        plan: What happened to each layer, and the totals (JSON).
        verdict: Each check of the gate with its limit and what was measured (JSON).
        report: The whole run, to read.
        metrics: Size, accuracy and latency of the model before and after.
        confusion: The confusion matrix of the candidate; of more than 50 classes, the worst.
        release_name: Name of the released model. Default: the name of the model.
        max_accuracy_drop: Accuracy that may be lost, points. Default: 1, if no limit is set.
        params_reduction: Share of the parameters to remove, 0 to 1.
        macs_reduction: Share of the multiply-adds to remove, 0 to 1.
        latency_reduction: Share of the latency to remove, 0 to 1.
        epochs: Epochs of fine-tuning; 0 skips it.
        methods: Factorizations that compete. Default: all.
        spec: Any other settings, YAML or JSON (see `lrf spec`); the parameters above override it.

    Returns:
        Whether the candidate passed every check of the gate.
    """
    from pathlib import Path

    from components.step import step

    parameters = {
        "goal.max_accuracy_drop": max_accuracy_drop,
        "goal.params_reduction": params_reduction,
        "goal.macs_reduction": macs_reduction,
        "goal.latency_reduction": latency_reduction,
        "finetune.epochs": epochs,
        "explore.methods": methods or None,
        "publish.name": release_name or None,
        "publish.to": store,
    }
    inputs = {"model": model.path, "data": data.path}
    with step("compress", spec, inputs=inputs, parameters=parameters) as settings:
        from components.metrics import log_judgement
        from lrf_core.files.scratch import scratch_folder
        from lrf_core.releases import fetch_served
        from lrf_core.run.workflow import run_spec
        from lrf_core.storage import open_store

        with scratch_folder("run") as folder:
            result = run_spec(settings.model_copy(update={"out": str(folder)}))
            result.outputs.copy_to(
                {
                    "candidate": Path(candidate.path) / "model.keras",
                    "analysis": Path(analysis.path),
                    "design_space": Path(design_space.path),
                    "plan": Path(plan.path),
                    "verdict": Path(verdict.path),
                    "report": Path(report.path),
                }
            )
        log_judgement(result.verdict, candidate, verdict, metrics, confusion)
        published = result.release
        release.metadata.update(passed=result.verdict.passed)
        if published:
            fetch_served(open_store(store), published, Path(release.path))
            release.metadata.update(
                name=published.name,
                version=published.version,
                location=published.location,
                framework="tensorflow",
                format="SavedModel",
                parent_digest=result.analysis.model_digest,
                **published.summary.model_dump(exclude_none=True),
            )
        return result.verdict.passed
