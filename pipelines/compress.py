"""The graph: analyze; explore the shards side by side, and merge them; decompose and finetune the
plans side by side; validate them together, and publish the smallest that passes."""

from pathlib import Path

from kfp import compiler, dsl

from components.analyze import analyze
from components.decompose import decompose
from components.explore import explore
from components.finetune import finetune
from components.merge import merge
from components.publish import publish
from components.validate import validate

NAME = "lrf-compress"
COMPILED = Path(__file__).with_name("compress.yaml")


def _step(task: dsl.PipelineTask, display_name: str) -> dsl.PipelineTask:
    # The spec names model and data by path. A cache keyed by the spec would not see new content
    # under an old path, and would hand out results of another model.
    return task.set_display_name(display_name).set_caching_options(False)


@dsl.pipeline(
    name=NAME,
    description="Compress a trained Keras CNN, fine-tune it, judge it, and publish it if it passes",
)
def compress(spec: str) -> None:
    """The whole way from a trained model to a release.

    Args:
        spec: The spec as JSON, `Spec.model_dump_json()`.
    """
    analyzed = _step(analyze(spec=spec), "Analyze")
    baseline = analyzed.outputs["baseline"]
    analysis = analyzed.outputs["analysis"]
    with dsl.ParallelFor(analyzed.outputs["Output"]) as shard:
        explored = _step(
            explore(spec=spec, shard=shard, baseline=baseline, analysis=analysis), "Explore"
        )
    # A step between the loops: kfp 2.17 compiles no dsl.Collected of artifacts into another loop.
    merged = _step(
        merge(spec=spec, analysis=analysis, shards=dsl.Collected(explored.outputs["design_space"])),
        "Merge",
    )
    known = {"analysis": analysis, "design_space": merged.outputs["design_space"]}
    with dsl.ParallelFor(merged.outputs["Output"]) as number:
        decomposed = _step(
            decompose(
                spec=spec, number=number, baseline=baseline, design_space=known["design_space"]
            ),
            "Decompose",
        )
        trained = _step(
            finetune(spec=spec, baseline=baseline, factorized=decomposed.outputs["factorized"]),
            "Finetune",
        )
    judged = _step(
        validate(
            spec=spec,
            baseline=baseline,
            candidates=dsl.Collected(trained.outputs["candidate"]),
            plans=dsl.Collected(decomposed.outputs["plan"]),
            trainings=dsl.Collected(trained.outputs["training"]),
            **known,
        ),
        "Validate",
    )
    with dsl.If(judged.outputs["Output"] == True, name="Passed"):  # noqa: E712 - builds a condition
        names = ("candidate", "plan", "training", "verdict", "report", "lineage")
        picked = {name: judged.outputs[name] for name in names}
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        _step(publish(spec=spec, run_id=run_id, **known, **picked), "Publish")


def compile_pipeline(target: Path = COMPILED) -> Path:
    """Write the pipeline as YAML for a cluster; the same input gives the same bytes."""
    compiler.Compiler().compile(compress, str(target))
    return target
