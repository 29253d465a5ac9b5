"""The graph: analyze; explore the shards side by side, and merge them; decompose and finetune the
plans side by side; validate them together, and publish the smallest that passes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel, PipelineParameterChannel

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


@dataclass(frozen=True)
class CompressSteps:
    """Tasks in a pipeline that compress a model and judge the result.

    Attributes:
        judged: the task that selects a candidate. Its outputs are `Output`, whether that passed
            every check of the gate, `candidate`, `verdict`, `report`, `plan`, `metrics` and others.
    """

    judged: dsl.PipelineTask
    _add_publish: Callable[[], dsl.PipelineTask]

    @property
    def passed(self) -> PipelineParameterChannel:
        """Whether the selected candidate passed, for `dsl.If(steps.passed == True)`."""
        return self.judged.outputs["Output"]

    def publish(self) -> dsl.PipelineTask:
        """Add the task that publishes what passed, inside of `dsl.If(steps.passed == True)`.

        Its output `release` is the manifest of the release, with `location` in the metadata.
        """
        return self._add_publish()


def compress_steps(
    spec: str | PipelineParameterChannel,
    model: PipelineArtifactChannel | None = None,
    data: PipelineArtifactChannel | None = None,
    *,
    content: str | PipelineParameterChannel = "",
    cluster: ClusterSpec | None = None,
    cached: bool = False,
) -> CompressSteps:
    """Add the tasks of a compression to the pipeline in whose function this is called.

    Layers are explored side by side, and so are plans built and trained.

    Args:
        spec: settings as JSON or YAML; without `model` and `data` if these are artifacts.
        model, data: artifacts of the caller's own tasks. By default the spec names both.
        content: `content_of(spec).digest`; "" if that is not known.
        cluster: image, resources and keys of every task; None for a run on one machine.
        cached: results of earlier runs may be taken over where arguments are the same. The
            argument `content` must then tell contents apart. A judgement is never taken over, nor
            is publishing, which acts outside.
    """

    def step(task: dsl.PipelineTask, cacheable: bool = True) -> dsl.PipelineTask:
        stage = task.component_spec.name
        task.set_display_name(stage.capitalize()).set_caching_options(cached and cacheable)
        return with_cluster_spec(task, stage, cluster) if cluster else task

    asked = {"spec": spec, "content": content}
    reading = {**asked, **({} if data is None else {"data": data})}
    analyzed = step(analyze(**reading, **({} if model is None else {"model": model})))
    baseline = analyzed.outputs["baseline"]
    analysis = analyzed.outputs["analysis"]
    with dsl.ParallelFor(analyzed.outputs["Output"]) as shard:
        explored = step(explore(shard=shard, baseline=baseline, analysis=analysis, **reading))
    # A step between the loops: kfp 2.17 compiles no dsl.Collected of artifacts into another loop.
    shards = dsl.Collected(explored.outputs["design_space"])
    merged = step(merge(analysis=analysis, shards=shards, **asked))
    known = {"analysis": analysis, "design_space": merged.outputs["design_space"]}
    with dsl.ParallelFor(merged.outputs["Output"]) as number:
        space = known["design_space"]
        decomposed = step(
            decompose(number=number, baseline=baseline, design_space=space, **reading)
        )
        factorized = decomposed.outputs["factorized"]
        trained = step(finetune(baseline=baseline, factorized=factorized, **reading))
    judged = step(
        validate(
            baseline=baseline,
            candidates=dsl.Collected(trained.outputs["candidate"]),
            plans=dsl.Collected(decomposed.outputs["plan"]),
            trainings=dsl.Collected(trained.outputs["training"]),
            **known,
            **reading,
        ),
        cacheable=False,
    )

    def add_publish() -> dsl.PipelineTask:
        names = ("candidate", "plan", "training", "verdict", "report", "lineage")
        picked = {name: judged.outputs[name] for name in names}
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        return step(publish(spec=spec, run_id=run_id, **known, **picked), cacheable=False)

    return CompressSteps(judged, add_publish)


def pipeline_for(cluster: ClusterSpec | None, cached: bool = False) -> BaseComponent:
    """The pipeline, with what a spec says of the cluster compiled into every step.

    Args:
        cluster, cached: see `compress_steps`.
    """

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
        steps = compress_steps(spec, content=content, cluster=cluster, cached=cached)
        with dsl.If(steps.passed == True, name="Passed"):  # noqa: E712 - a condition
            steps.publish()

    return compress


# The same steps without anything of a cluster: for kfp.local.
compress = pipeline_for(None)


def compile_pipeline(
    target: Path = COMPILED, cluster: ClusterSpec | None = None, cached: bool = False
) -> Path:
    """Write the pipeline as YAML for a cluster; the same input gives the same bytes."""
    compiler.Compiler().compile(pipeline_for(cluster or ClusterSpec(), cached), str(target))
    return target
