"""The graph: analyze; explore the shards side by side, and merge them; decompose and finetune the
plans side by side; validate them together, and publish the smallest that passes."""

from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent

from components.analyze import analyze
from components.decompose import decompose
from components.explore import explore
from components.finetune import finetune
from components.merge import merge
from components.publish import publish
from components.validate import validate
from lrf_core.spec import ClusterSpec
from pipelines.cluster import with_cluster_spec

NAME = "lrf-compress"
COMPILED = Path(__file__).with_name("compress.yaml")


def pipeline_for(cluster: ClusterSpec | None, cached: bool = False) -> BaseComponent:
    """The pipeline, with what a spec says of the cluster compiled into every step.

    Args:
        cluster: None for a run on one machine.
        cached: results of earlier runs may be taken over where arguments are the same. The
            argument `content` must then tell contents apart. A judgement is never taken over, nor
            is publishing, which acts outside.
    """

    def step(task: dsl.PipelineTask, cacheable: bool = True) -> dsl.PipelineTask:
        stage = task.component_spec.name
        task.set_display_name(stage.capitalize()).set_caching_options(cached and cacheable)
        return with_cluster_spec(task, stage, cluster) if cluster else task

    @dsl.pipeline(
        name=NAME,
        description="Compress a trained Keras CNN, fine-tune it, judge it, and publish it if it "
        "passes",
    )
    def compress(spec: str, content: str = "") -> None:
        """The whole way from a trained model to a release.

        Args:
            spec: The spec as JSON, `Spec.model_dump_json()`.
            content: What its inputs contain, `content_of(spec).digest`; "" where that is not known.
        """
        asked = {"spec": spec, "content": content}
        analyzed = step(analyze(**asked))
        baseline = analyzed.outputs["baseline"]
        analysis = analyzed.outputs["analysis"]
        with dsl.ParallelFor(analyzed.outputs["Output"]) as shard:
            explored = step(explore(shard=shard, baseline=baseline, analysis=analysis, **asked))
        # A step between the loops: kfp 2.17 compiles no dsl.Collected of artifacts into another
        # loop.
        shards = dsl.Collected(explored.outputs["design_space"])
        merged = step(merge(analysis=analysis, shards=shards, **asked))
        known = {"analysis": analysis, "design_space": merged.outputs["design_space"]}
        with dsl.ParallelFor(merged.outputs["Output"]) as number:
            space = known["design_space"]
            decomposed = step(
                decompose(number=number, baseline=baseline, design_space=space, **asked)
            )
            factorized = decomposed.outputs["factorized"]
            trained = step(finetune(baseline=baseline, factorized=factorized, **asked))
        judged = step(
            validate(
                baseline=baseline,
                candidates=dsl.Collected(trained.outputs["candidate"]),
                plans=dsl.Collected(decomposed.outputs["plan"]),
                trainings=dsl.Collected(trained.outputs["training"]),
                **known,
                **asked,
            ),
            cacheable=False,
        )
        with dsl.If(judged.outputs["Output"] == True, name="Passed"):  # noqa: E712 - a condition
            names = ("candidate", "plan", "training", "verdict", "report", "lineage")
            picked = {name: judged.outputs[name] for name in names}
            run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
            step(publish(spec=spec, run_id=run_id, **known, **picked), cacheable=False)

    return compress


# The same steps without anything of a cluster: for kfp.local.
compress = pipeline_for(None)


def compile_pipeline(
    target: Path = COMPILED, cluster: ClusterSpec | None = None, cached: bool = False
) -> Path:
    """Write the pipeline as YAML for a cluster; the same input gives the same bytes."""
    compiler.Compiler().compile(pipeline_for(cluster or ClusterSpec(), cached), str(target))
    return target
