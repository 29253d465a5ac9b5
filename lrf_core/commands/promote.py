"""`lrf promote`: a release into service, or out of it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrf_core.commands.flags import JsonOption
from lrf_core.commands.output import print_json
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.console.terminal import echo, print_table
from lrf_core.errors import SpecError
from lrf_core.redaction import shown
from lrf_core.spec import GateSpec, PromoteSpec, make_spec, read_spec

if TYPE_CHECKING:
    from lrf_core.artifacts import Promotion

SpecOption = Annotated[
    Path | None, typer.Option(help="YAML file with settings; flags override it.")
]
NameArgument = Annotated[
    str | None, typer.Argument(help="Name of the release (or publish.name in --spec).")
]
RefOption = Annotated[str, typer.Option(help="latest, champion, previous, a number, or v-....")]
FromOption = Annotated[
    str | None,
    typer.Option("--from", help="Where the releases are: s3://bucket/prefix (or publish.to)."),
]
ServiceOption = Annotated[
    str | None, typer.Option(help="The InferenceService: namespace/name.", metavar="NS/NAME")
]
CanaryOption = Annotated[
    str | None, typer.Option(help="Percent of the traffic, e.g. 10,50,100, the default.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check all that can be, print the patch, write nothing.")
]
RollbackOption = Annotated[
    bool, typer.Option("--rollback", help="Undo the last promotion of the service instead.")
]
WaitOption = Annotated[
    str | None, typer.Option(help="For the service to be ready, each time.  [default: 10m]")
]
SoakOption = Annotated[
    str | None,
    typer.Option(help="Watch each share this long.  [default: 5m with --prometheus, else 0]"),
]
IntervalOption = Annotated[str | None, typer.Option(help="Between two queries.  [default: 15s]")]
PrometheusOption = Annotated[str | None, typer.Option(help="URL of Prometheus.")]
QueryOption = Annotated[
    str | None, typer.Option(help="PromQL; $namespace, $service, $revision are filled in.")
]
MaxOption = Annotated[float | None, typer.Option("--max", help="No value may be above it.")]
MinOption = Annotated[float | None, typer.Option("--min", help="No value may be below it.")]
NoDataOption = Annotated[
    str | None, typer.Option(help="What no values mean: fail or pass.  [default: fail]")
]
KeyOption = Annotated[
    str | None, typer.Option("--public-key", help="The release must be signed; PEM file.")
]
OverrideOption = Annotated[
    bool | None,
    typer.Option("--allow-override", help="Also what was published although checks failed."),
]
UrlOption = Annotated[
    str | None, typer.Option(help="Ingress gateway, where the service's host does not resolve.")
]
ProtocolOption = Annotated[
    str | None, typer.Option(help="v1 or v2.  [default: the service's own, else v1]")
]
RuntimeOption = Annotated[str | None, typer.Option(help="A ServingRuntime by its name.")]
ReportOption = Annotated[
    Path | None, typer.Option("--out", help="Folder for promotion.json, what was done.")
]


def promote(
    name: NameArgument = None,
    ref: RefOption = "latest",
    from_: FromOption = None,
    service: ServiceOption = None,
    canary: CanaryOption = None,
    dry_run: DryRunOption = False,
    rollback: RollbackOption = False,
    wait: WaitOption = None,
    soak: SoakOption = None,
    interval: IntervalOption = None,
    prometheus: PrometheusOption = None,
    query: QueryOption = None,
    max_: MaxOption = None,
    min_: MinOption = None,
    no_data: NoDataOption = None,
    public_key: KeyOption = None,
    allow_override: OverrideOption = None,
    url: UrlOption = None,
    protocol: ProtocolOption = None,
    runtime: RuntimeOption = None,
    spec: SpecOption = None,
    out: ReportOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a release by a KServe InferenceService, step by step.

    The release is verified from its bytes to its verdict, loaded beside what is served, asked for
    its recorded answers, and then given traffic in steps. Whatever fails is rolled back. Killed?
    Run the same command again. Ends with 3 when the release may not be served, with 1 when it was
    rolled back.

    \b
    Examples:
      lrf promote digits --from s3://models --service team/digits --dry-run
      lrf promote digits --from s3://models --service team/digits --canary 10,50,100
      lrf promote digits --ref 3 --from s3://models --service team/digits --soak 5m \\
        --prometheus http://prometheus:9090 --max 0.01 --query 'sum(rate(
        revision_app_request_count{revision_name="$revision",response_code_class="5xx"}[1m]))'
      lrf promote --rollback --service team/digits
    """
    asked = _asked(
        spec,
        {
            "publish": {"to": from_, "name": name},
            "promote": {
                "service": service,
                "canary": _percents(canary),
                "wait": wait,
                "soak": soak,
                "interval": interval,
                "prometheus": _given(
                    url=prometheus, query=query, max=max_, min=min_, no_data=no_data
                ),
                "public_key": public_key,
                "allow_override": allow_override,
                "url": url,
                "protocol": protocol,
                "runtime": runtime,
            },
        },
    )
    settings, store, name, gate = asked
    if dry_run and rollback:
        raise SpecError("--dry-run and --rollback exclude each other; give one of them")
    if not rollback and not (name and store):
        raise SpecError("NAME and --from are needed; give them, or publish.name and publish.to")
    import_tensorflow_quietly()
    from lrf_core.stages.promote import NotPromotedError, preview, roll_back
    from lrf_core.stages.promote import promote as promote_stage

    if dry_run:
        _show_preview(preview(str(store), str(name), ref, settings, gate), as_json)
        return
    try:
        done = (
            roll_back(settings)
            if rollback
            else promote_stage(str(store), str(name), ref, settings, gate)
        )
    except NotPromotedError as error:
        _report(error.promotion, out, as_json)
        raise
    _report(done, out, as_json)


def _asked(
    file: Path | None, overrides: dict[str, Any]
) -> tuple[PromoteSpec, str | None, str | None, GateSpec | None]:
    written = read_spec(file) if file else {}
    if not overrides["promote"]["service"] and not (written.get("promote") or {}).get("service"):
        raise SpecError("--service is missing; give it, or --spec with promote.service in it")
    spec = make_spec({"model": "", "data": "", **written}, overrides)
    if spec.promote is None:
        raise SpecError("--service is missing; give it, or --spec with promote.service in it")
    registries = spec.promote.registries or spec.publish.registries
    settings = spec.promote.model_copy(update={"registries": tuple(registries)})
    # A spec that says nothing of goal and gate is about promotion alone.
    limited = bool({"goal", "gate"} & written.keys())
    gate = spec.effective_gate() if limited else None
    return settings, spec.publish.to, spec.publish.name, gate


def _given(**values: Any) -> dict[str, Any] | None:
    """The section, if any of its flags is given."""
    return values if any(value is not None for value in values.values()) else None


def _percents(steps: str | None) -> list[int] | None:
    if steps is None:
        return None
    try:
        return [int(step.strip().removesuffix("%")) for step in steps.split(",")]
    except ValueError:
        raise SpecError(f"--canary is {steps!r:.60}; write percents, e.g. 10,50,100") from None


def _show_preview(found: Any, as_json: bool) -> None:
    import yaml

    if as_json:
        print_json(
            {"release": found.release, "steps": list(found.steps), "patch": found.patch},
        )
        return
    if not found.patch:
        echo(f"# {found.release} is in the service already; nothing to patch")
        return
    steps = ", ".join(f"{step}%" for step in found.steps)
    echo(f"# {found.release}; traffic: {steps}")
    sys.stdout.write(yaml.safe_dump(found.patch, sort_keys=False))


def _report(done: Promotion, out: Path | None, as_json: bool) -> None:
    if out:
        out.mkdir(parents=True, exist_ok=True)
        done.save(out)
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    from rich import box
    from rich.table import Table

    table = Table("step", "", "s", "what was found", box=box.SIMPLE_HEAD)
    for step in done.steps:
        passed = "done" if step.passed else "failed"
        table.add_row(shown(step.name), passed, f"{step.seconds:.1f}", shown(step.detail))
    print_table(table)
    outcome = done.outcome.replace("_", " ")
    print_table(f"{outcome}: {done.release} on {done.service}")
