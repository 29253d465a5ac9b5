"""`python -m pipelines run|compile|submit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lrf_core.cli import run_command_line
from lrf_core.commands.options import (
    DropOption,
    EpochsOption,
    JsonOption,
    MacsOption,
    MethodsOption,
    NameOption,
    OutOption,
    ParamsOption,
    PlansOption,
    PolicyOption,
    SamplesOption,
    SeedOption,
    SimilarityOption,
    ToOption,
    goal_settings,
    split_names,
)
from lrf_core.errors import EXIT_GATE_REFUSED
from lrf_core.spec import load_spec

app = typer.Typer(
    help="The compression pipeline, on this machine or on a cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecArgument = Annotated[Path, typer.Argument(help="YAML spec; flags override it.")]


@app.command()
def run(
    spec: SpecArgument,
    out: OutOption = None,
    max_accuracy_drop: DropOption = None,
    params_reduction: ParamsOption = None,
    macs_reduction: MacsOption = None,
    similarity: SimilarityOption = None,
    methods: MethodsOption = None,
    samples: SamplesOption = None,
    policy: PolicyOption = None,
    plans: PlansOption = None,
    epochs: EpochsOption = None,
    to: ToOption = None,
    name: NameOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the pipeline on this machine, every step in a process of its own.

    Leaves in OUT what `lrf compress` leaves there, and the steps' log in OUT/pipeline/run.log.

    \b
    Examples:
      python -m pipelines run spec.yaml
      python -m pipelines run spec.yaml --out out/digits --max-accuracy-drop 0.5

    \b
    Ends with 0 when the model passed and is published, 3 when the gate said no, 2 for bad
    input, 1 for anything else.
    """
    settings = {
        "out": out,
        "seed": seed,
        "goal": goal_settings(max_accuracy_drop, params_reduction, macs_reduction, similarity),
        "explore": {"methods": split_names(methods), "samples": samples},
        "decompose": {"policy": policy, "plans": plans},
        "finetune": {"epochs": epochs},
        "publish": {"to": to, "name": name},
    }
    asked = load_spec(spec, settings)
    from lrf_core.summary import print_run, run_as_json
    from pipelines.local import run as run_here

    finished = run_here(asked, lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(run_as_json(finished), indent=2))
    else:
        print_run(finished)
    if not finished.verdict.passed:
        raise typer.Exit(EXIT_GATE_REFUSED)


@app.command("compile")
def compile_(
    target: Annotated[
        Path | None, typer.Argument(help="File to write.  [default: pipelines/compress.yaml]")
    ] = None,
) -> None:
    """Write the pipeline as YAML, for clusters. LRF_IMAGE names the image of the components.

    \b
    Examples:
      python -m pipelines compile
      LRF_IMAGE=registry.example/lrf:0.1.0 python -m pipelines compile lrf.yaml
    """
    from pipelines.compress import COMPILED, compile_pipeline

    typer.echo(f"written to {compile_pipeline(target or COMPILED)}")


@app.command()
def submit(
    spec: SpecArgument,
    host: Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines API.")],
    namespace: Annotated[
        str | None, typer.Option(help="Namespace to run in, where there are several.")
    ] = None,
    plans: PlansOption = None,
    to: ToOption = None,
    experiment: Annotated[str, typer.Option(help="Experiment to file the run under.")] = "lrf",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the run and end by its verdict.")
    ] = True,
) -> None:
    """Submit the pipeline to a cluster. A token, if one is needed, is read from LRF_KFP_TOKEN.

    Paths in the spec are those that the components see in their containers.

    \b
    Examples:
      python -m pipelines submit spec.yaml --host http://localhost:8888
      python -m pipelines submit spec.yaml --host https://kfp.example --namespace team --no-wait

    \b
    Ends with 0 when the model was published (or with --no-wait, submitted), 3 when the gate said
    no, 2 for bad input, 1 for anything else.
    """
    asked = load_spec(spec, {"decompose": {"plans": plans}, "publish": {"to": to}})
    from pipelines.submit import follow
    from pipelines.submit import submit as submit_there

    def say(line: str) -> None:
        typer.echo(line, err=True)

    submitted = submit_there(asked, host, namespace, experiment)
    typer.echo(f"submitted: {submitted.url}")
    if wait and not follow(submitted, say):
        typer.echo("not passed: the gate said no, nothing was published")
        raise typer.Exit(EXIT_GATE_REFUSED)
    if wait:
        typer.echo("passed: published")


def main() -> None:
    """`python -m pipelines`; the steps show their own progress."""
    run_command_line(app)


if __name__ == "__main__":
    main()
