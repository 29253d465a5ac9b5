"""The commands of `lrf pipeline` and `python -m pipelines`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrf_core.commands.flags import JsonOption, by_spec
from lrf_core.console.terminal import echo, open_closed_streams, say
from lrf_core.errors import EXIT_GATE_REFUSED, SpecError
from lrf_core.spec import Spec, load_spec

if TYPE_CHECKING:
    from pipelines.submit import Submitted

app = typer.Typer(
    help="The compression pipeline, on this machine or on a cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HostOption = Annotated[str, typer.Option(help="Address of the Kubeflow Pipelines API.")]
NamespaceOption = Annotated[
    str | None, typer.Option(help="Namespace of the run, if the cluster has several.")
]


@app.command()
@by_spec(
    "out",
    "goal.max_accuracy_drop",
    "goal.params_reduction",
    "goal.macs_reduction",
    "decompose.plans",
    "finetune.epochs",
    "publish.to",
    "publish.name",
    file_first=True,
)
def run(spec: Spec, as_json: JsonOption = False) -> None:
    """Run the pipeline on this machine, every step in a process of its own.

    Leaves in OUT what `lrf compress` leaves there, and the steps' log in OUT/pipeline/run.log.

    \b
    Examples:
      lrf pipeline run spec.yaml
      lrf pipeline run spec.yaml --out out/digits --max-accuracy-drop 0.5

    \b
    Exit code: 0 if the model passed and is published, 3 if it failed the gate, 2 for bad input,
    1 for any other failure.
    """
    from lrf_core.run.summary import print_run, run_as_json
    from pipelines.local import run as run_here

    finished = run_here(spec, say)
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
    spec: Annotated[
        Path | None, typer.Option(help="A spec: its section `cluster` is compiled in.")
    ] = None,
) -> None:
    """Write the pipeline as YAML, to upload it. LRF_IMAGE names the image of the components.

    \b
    Examples:
      lrf pipeline compile
      LRF_IMAGE=registry.example/lrf:0.1.0 lrf pipeline compile lrf.yaml
      lrf pipeline compile lrf.yaml --spec spec.yaml
    """
    if spec and not target:
        raise SpecError("say where to write what is compiled for a spec: compile FILE --spec SPEC")
    cluster = load_spec(spec).effective_cluster() if spec else None
    from pipelines.compress import COMPILED, compile_pipeline

    echo(f"written to {compile_pipeline(target or COMPILED, cluster)}")


@app.command()
@by_spec("decompose.plans", "publish.to", file_first=True, in_own_folder=False)
def submit(
    spec: Spec,
    host: HostOption,
    namespace: NamespaceOption = None,
    experiment: Annotated[str, typer.Option(help="Experiment to file the run under.")] = "lrf",
    run_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the run: of those with one name no second is started.  [default: made "
            "of the spec and its inputs, and only one at a time]"
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the run and end by its verdict.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Submit the pipeline to a cluster. A token, if one is needed, is read from LRF_KFP_TOKEN.

    Paths in the spec are those that the components see in their containers. Submitted again while
    it runs, the same run is followed.

    \b
    Examples:
      lrf pipeline submit spec.yaml --host http://localhost:8888
      lrf pipeline submit spec.yaml --host https://kfp.example --namespace team --no-wait

    \b
    Exit code: 0 if the model is published (or with --no-wait, the run submitted), 3 if it failed
    the gate, 2 for bad input, 1 for any other failure.
    """
    from pipelines.submit import submit as submit_there

    submitted = submit_there(spec, host, namespace, experiment, run_name=run_name, say=say)
    say(f"{'found' if submitted.found else 'submitted'}: {submitted.url}")
    if wait:
        _await(submitted, host, namespace, as_json)
    elif as_json:
        from pipelines.results import Results, results_as_json

        typer.echo(json.dumps(results_as_json(submitted, None, Results(None, None)), indent=2))


@app.command()
def follow(
    run_id: Annotated[str, typer.Argument(help="As in the address of the run's page.")],
    host: HostOption,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a run that was submitted before. It ends as submit does.

    \b
    Examples:
      lrf pipeline follow 6f0a3c1e-52d4-4d0a-8d3e-0f6f3f1f9a11 --host http://localhost:8888
    """
    from pipelines.submit import attach

    _await(attach(run_id, host, namespace), host, namespace, as_json)


def _await(submitted: Submitted, host: str, namespace: str | None, as_json: bool) -> None:
    from pipelines.results import print_results, results_as_json, results_of
    from pipelines.submit import follow as follow_there

    try:
        passed = follow_there(submitted, say)
    except KeyboardInterrupt:
        place = f" --namespace {namespace}" if namespace else ""
        say(
            f"the run goes on; follow it: lrf pipeline follow {submitted.run_id} "
            f"--host {host}{place}"
        )
        raise
    results = results_of(submitted)
    if results.missing:
        say(f"no verdict to show: {results.missing}; see {submitted.url}")
    if as_json:
        typer.echo(json.dumps(results_as_json(submitted, passed, results), indent=2))
    else:
        print_results(results)
    if not passed:
        say("not passed: the candidate failed the gate; nothing is published")
        raise typer.Exit(EXIT_GATE_REFUSED)
    say("passed: published")


def main() -> None:
    """`python -m pipelines`; the steps show their own progress."""
    from lrf_core.commands.app import run_command_line

    open_closed_streams()
    run_command_line(app)
