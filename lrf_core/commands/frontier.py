"""`lrf frontier`: the least predicted loss at every size, before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lrf_core.commands.flags import JsonOption, OutOption, SpacesOption
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import SpecError

if TYPE_CHECKING:
    from lrf_core.artifacts import Analysis
    from lrf_core.exploration.frontier import FrontierPoint

COSTS = ("params", "macs", "bytes", "latency")
LOSSES = ("sensitivity", "error")

AgainstOption = Annotated[str, typer.Option(help="params, macs, bytes or latency.")]
LossOption = Annotated[
    str,
    typer.Option(
        "--minimize", help="sensitivity (the predicted loss) or error (of feature maps, summed)."
    ),
]
PointsOption = Annotated[
    int, typer.Option(min=2, max=1000, help="Budgets, from the smallest plan to the whole model.")
]


def frontier(
    out: OutOption = Path("out"),
    space: SpacesOption = None,
    against: AgainstOption = "params",
    minimize: LossOption = "sensitivity",
    points: PointsOption = 40,
    as_json: JsonOption = False,
) -> None:
    """Show the best plans of a design space at every size: the whole Pareto front, exactly.

    Reads OUT/analysis.json and OUT/design_space.parquet, or its shards (see `lrf analyze` and
    `lrf explore`), needs neither the model nor the data, writes the drawing OUT/frontier.svg. Any
    point can be built by `lrf decompose` with its size as the limit.

    \b
    Examples:
      lrf frontier --out out
      lrf frontier --out out --against macs --points 20
      lrf frontier --out out --against latency --json | jq '.points[] | [.kept, .sensitivity]'
    """
    _one_of("--against", against, COSTS)
    _one_of("--minimize", minimize, LOSSES)
    import_tensorflow_quietly()
    from lrf_core.artifacts import Analysis
    from lrf_core.exploration.frontier import frontier as trace
    from lrf_core.exploration.merge import read_design_space
    from lrf_core.exploration.resources import options_of_run
    from lrf_core.run.outputs import Outputs

    outputs = Outputs(out)
    analysis = Analysis.load(outputs.analysis)
    whole = read_design_space(outputs.folder, space or ())
    options = options_of_run(whole, analysis)
    found = trace(options, against, minimize, points)
    _draw(outputs.frontier, analysis.model_name, against, minimize, found)
    if as_json:
        typer.echo(json.dumps(_as_json(analysis, against, minimize, found), indent=2))
    else:
        _print(analysis.model_name, against, minimize, found, outputs.frontier)


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SpecError(f"{flag} {value}: give one of {', '.join(known)}")


def _as_json(
    analysis: Analysis, against: str, minimize: str, points: tuple[FrontierPoint, ...]
) -> dict[str, Any]:
    return {
        "model": analysis.model_name,
        "model_digest": analysis.model_digest,
        "against": against,
        "minimize": minimize,
        "points": [
            {
                "kept": point.kept,
                **point.totals,
                "layers": {
                    c.layer: {"method": c.technique, "ranks": list(c.ranks)} for c in point.replaced
                },
            }
            for point in points
        ],
    }


def _print(
    name: str, against: str, minimize: str, points: tuple[FrontierPoint, ...], where: Path
) -> None:
    from lrf_core.report.tables import frontier_table
    from lrf_core.run.summary import print_result

    print_result(frontier_table(name, against, minimize, points), where)


def _draw(
    path: Path, name: str, against: str, minimize: str, points: tuple[FrontierPoint, ...]
) -> None:
    from lrf_core.exploration.resources import QUANTITIES
    from lrf_core.report.chart import curve_chart, write_svg

    loss, cost = QUANTITIES[minimize].title, QUANTITIES[against].title
    dots = [
        (
            100 * point.kept,
            point.totals[minimize],
            f"{point.totals[against]:,.6g} {cost}, {loss} {point.totals[minimize]:.4g}",
        )
        for point in points
    ]
    write_svg(path, curve_chart(f"{name}: least {loss}", f"{cost} kept, %", dots))
