"""`lrf analyze`, `lrf explore`, `lrf decompose`: from a model to a factorized one."""

from __future__ import annotations

from typing import Annotated

import typer

from lrf_core.commands.flags import JsonOption, SpacesOption, by_spec
from lrf_core.commands.output import lock_outputs, print_artifact, print_plans
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.spec import Spec

ShardOption = Annotated[
    str | None, typer.Option(help="One part of the layers, e.g. 1/4 to 4/4.  [default: all]")
]


@by_spec("model", "weights", "data", "out")
def analyze(spec: Spec, as_json: JsonOption = False) -> None:
    """List every layer, what it costs and whether it can be factorized; measure the model.

    Writes OUT/analysis.json.

    \b
    Examples:
      lrf analyze model.keras --data digits.npz
      lrf analyze model.keras --data digits.npz --json | jq '.layers[].name'
    """
    import_tensorflow_quietly()
    from lrf_core.report.tables import inventory_table
    from lrf_core.run import steps

    outputs = lock_outputs(spec)
    analysis = steps.analyze(spec, *steps.load_inputs(spec))
    analysis.save(outputs.analysis)
    print_artifact(analysis, as_json, inventory_table(analysis), outputs.analysis)


@by_spec("model", "weights", "data", "out", "explore.samples", "explore.methods", "explore.cache")
def explore(spec: Spec, shard: ShardOption = None, as_json: JsonOption = False) -> None:
    """Score every candidate (layer, method, ranks) on calibration samples.

    Reads OUT/analysis.json (see `lrf analyze`), writes OUT/design_space.parquet, or with --shard
    OUT/design_space-1-of-4.parquet and so on; `lrf decompose` reads either. Each score is stored at
    once: after an interruption, run the same command again, and it goes on where it stopped.

    \b
    Examples:
      lrf explore model.keras --data digits.npz --out out
      lrf explore model.keras --data digits.npz --out out --samples 256
      lrf explore model.keras --data digits.npz --out out --shard 1/4 --cache s3://bucket/scores
      lrf explore model.keras --data digits.npz --out out --set explore.latency=latency.json
    """
    import_tensorflow_quietly()
    from lrf_core.artifacts import Analysis
    from lrf_core.exploration.shards import Shard
    from lrf_core.run import steps

    part = None if shard is None else Shard.parse(shard)
    outputs = lock_outputs(spec, "" if part is None else f"{part.number}-of-{part.count}")
    analysis = Analysis.load(outputs.analysis)
    model, data = steps.load_inputs(spec)
    space = steps.explore(spec, model, data, analysis, part, outputs.latency)
    file = space.save(outputs.design_space_of(part))
    count = f"{len(space.candidates)} candidates of {len(space.layers)} layers"
    print_artifact(space, as_json, count, file)


@by_spec(
    "model",
    "weights",
    "data",
    "out",
    "goal.max_accuracy_drop",
    "goal.params_reduction",
    "goal.macs_reduction",
    "decompose.plans",
)
def decompose(spec: Spec, space: SpacesOption = None, as_json: JsonOption = False) -> None:
    """Choose one candidate per layer for the goal, and build the factorized model.

    Reads OUT/design_space.parquet, or the files of all shards, which it merges to that one; writes
    OUT/plan.json and OUT/factorized/model.keras, or with several plans the same files of each in
    OUT/plans/0, OUT/plans/1 and so on.

    \b
    Examples:
      lrf decompose model.keras --data digits.npz --out out --params-reduction 0.5
      lrf decompose --spec spec.yaml --space a/design_space.parquet --space b/design_space.parquet
      lrf decompose model.keras --data digits.npz --max-accuracy-drop 0.5 --plans 5
      lrf decompose model.keras --data digits.npz --set goal.max_macs=3000000
      lrf decompose model.keras --data digits.npz --set goal.max_predicted_loss=0.02 \\
        --set decompose.minimize=macs
    """
    import_tensorflow_quietly()
    from lrf_core.artifacts import Analysis
    from lrf_core.exploration.merge import read_design_space
    from lrf_core.models.load import save_model
    from lrf_core.report import unjudged_rows
    from lrf_core.report.tables import layers_table, plans_table
    from lrf_core.run import steps

    outputs = lock_outputs(spec)
    analysis = Analysis.load(outputs.analysis)
    model, data = steps.load_inputs(spec)
    whole = read_design_space(outputs.folder, space or ())
    numbers = steps.plan_numbers(spec, whole, analysis)
    prepared = steps.prepare(spec, model, data, whole)
    whole.save(outputs.design_space)
    outputs.clear_plans()
    plans, files = [], []
    for number in numbers:
        plan, factorized = prepared.build(number)
        place = outputs.of_plan(number, plan.asked)
        save_model(factorized, place.factorized)
        plans.append(plan)
        files.append(plan.save(place.plan))
    if len(plans) == 1:
        print_plans(plans, as_json, layers_table(plans[0], analysis), files[0])
    else:
        table = plans_table(unjudged_rows(plans))
        print_plans(plans, as_json, table, files[0].parent.parent)
