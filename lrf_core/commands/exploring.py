"""`lrf analyze`, `lrf explore`, `lrf decompose`: from a model to a factorized one."""

from __future__ import annotations

from typing import Any

from lrf_core.artifacts import Analysis
from lrf_core.commands.asked import asked_for, hold, inputs_of, show, show_plans
from lrf_core.commands.options import (
    BytesOption,
    CacheOption,
    DataOption,
    DropOption,
    JsonOption,
    LatencyOption,
    LatencyReductionOption,
    MacsOption,
    MaxBytesOption,
    MaxLatencyOption,
    MaxLossOption,
    MaxMacsOption,
    MaxParamsOption,
    MethodsOption,
    MinimizeOption,
    ModelArgument,
    NoCacheOption,
    OutOption,
    ParamsOption,
    PlansOption,
    PolicyOption,
    SamplesOption,
    SeedOption,
    ShardOption,
    SimilarityOption,
    SpacesOption,
    SpecOption,
    WeightsOption,
    cache_setting,
    goal_settings,
    split_names,
)
from lrf_core.console.quiet import import_tensorflow_quietly


def analyze(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    methods: MethodsOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """List every layer, what it costs and whether it can be factorized; measure the model.

    \b
    Examples:
      lrf analyze model.keras --data digits.npz
      lrf analyze model.keras --data digits.npz --json | jq '.layers[].name'
    """
    import_tensorflow_quietly()
    import_tensorflow_quietly()
    from lrf_core.report.tables import inventory_table
    from lrf_core.stages import analyze as analyze_stage

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        explore={"methods": split_names(methods)},
    )
    asked, outputs = asked_for(spec, settings)
    hold(outputs)
    network, samples = inputs_of(asked)
    analysis = analyze_stage(network, samples, settings=asked.explore, seed=asked.seed)
    analysis.save(outputs.analysis)
    show(analysis, as_json, inventory_table(analysis), outputs.analysis)


def explore(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    samples: SamplesOption = None,
    methods: MethodsOption = None,
    shard: ShardOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    latency: LatencyOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every candidate (layer, method, ranks) on calibration samples.

    Reads OUT/analysis.json (see `lrf analyze`), writes OUT/design_space.parquet, or with --shard
    OUT/design_space-1-of-4.parquet and so on; `lrf decompose` reads either. Scores are kept as
    soon as they are there: run it again after an interruption and it goes on where it stopped.

    \b
    Examples:
      lrf explore model.keras --data digits.npz --out out
      lrf explore model.keras --data digits.npz --out out --samples 256
      lrf explore model.keras --data digits.npz --out out --shard 1/4 --cache s3://bucket/scores
      lrf explore model.keras --data digits.npz --out out --latency latency.json
    """
    import_tensorflow_quietly()
    import_tensorflow_quietly()
    from lrf_core.exploration.shards import Shard
    from lrf_core.latency import measured_first
    from lrf_core.stages import explore as explore_stage

    part = None if shard is None else Shard.parse(shard)

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        explore={
            "samples": samples,
            "methods": split_names(methods),
            "cache": cache_setting(cache, no_cache),
            "latency": latency,
        },
    )
    asked, outputs = asked_for(spec, settings)
    hold(outputs, "" if part is None else f"{part.number}-of-{part.count}")
    analysis = Analysis.load(outputs.analysis)
    network, inputs = inputs_of(asked)
    wanted = measured_first(
        asked.effective_explore(), network, analysis.eligible(), outputs.latency
    )
    space = explore_stage(network, inputs, analysis, settings=wanted, shard=part, seed=asked.seed)
    written = space.save(outputs.design_space_of(part))
    found = f"{len(space.candidates)} candidates of {len(space.layers)} layers"
    show(space, as_json, found, written)


def decompose(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    max_accuracy_drop: DropOption = None,
    params_reduction: ParamsOption = None,
    macs_reduction: MacsOption = None,
    bytes_reduction: BytesOption = None,
    latency_reduction: LatencyReductionOption = None,
    max_params: MaxParamsOption = None,
    max_macs: MaxMacsOption = None,
    max_weight_bytes: MaxBytesOption = None,
    max_latency_ms: MaxLatencyOption = None,
    max_predicted_loss: MaxLossOption = None,
    similarity: SimilarityOption = None,
    policy: PolicyOption = None,
    space: SpacesOption = None,
    minimize: MinimizeOption = None,
    plans: PlansOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose one candidate per layer for the goal and build the factorized model.

    Reads OUT/design_space.parquet, or the files of all shards, which it joins to that one; writes
    OUT/plan.json and OUT/factorized/model.keras, or with several plans the same files of each in
    OUT/plans/0, OUT/plans/1 and so on.

    \b
    Examples:
      lrf decompose model.keras --data digits.npz --out out --params-reduction 0.5
      lrf decompose model.keras --data digits.npz --out out --similarity 0.95 --policy threshold
      lrf decompose --spec spec.yaml --space a/design_space.parquet --space b/design_space.parquet
      lrf decompose model.keras --data digits.npz --max-weight-bytes 200000 --max-macs 3000000
      lrf decompose model.keras --data digits.npz --max-predicted-loss 0.02 --minimize macs
      lrf decompose model.keras --data digits.npz --max-accuracy-drop 0.5 --plans 5
    """
    import_tensorflow_quietly()
    import_tensorflow_quietly()
    from lrf_core.exploration.merge import read_design_space
    from lrf_core.models.load import save_model
    from lrf_core.report import unjudged_rows
    from lrf_core.report.tables import layers_table, plans_table
    from lrf_core.stages import plan_numbers, prepare

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        goal=goal_settings(
            max_accuracy_drop,
            params_reduction,
            macs_reduction,
            similarity,
            bytes_reduction=bytes_reduction,
            latency_reduction=latency_reduction,
            max_params=max_params,
            max_macs=max_macs,
            max_weight_bytes=max_weight_bytes,
            max_latency_ms=max_latency_ms,
            max_predicted_loss=max_predicted_loss,
        ),
        decompose={"policy": policy, "minimize": minimize, "plans": plans},
    )
    asked, outputs = asked_for(spec, settings)
    hold(outputs)
    analysis = Analysis.load(outputs.analysis)
    network, samples = inputs_of(asked)
    whole = read_design_space(outputs.folder, space or ())
    goal, wanted = asked.effective_goal(), asked.effective_decompose()
    numbers = plan_numbers(whole, analysis, goal, settings=wanted)
    prepared = prepare(network, samples, [whole], goal, settings=wanted, seed=asked.seed)
    whole.save(outputs.design_space)
    outputs.clear_plans()
    made = []
    for number in numbers:
        plan, factorized = prepared.build(number)
        place = outputs.of_plan(number, plan.asked)
        save_model(factorized, place.factorized)
        made.append((plan, plan.save(place.plan)))
    chosen, files = [plan for plan, _ in made], [file for _, file in made]
    if len(made) == 1:
        show_plans(chosen, as_json, layers_table(chosen[0], analysis), files[0])
    else:
        show_plans(chosen, as_json, plans_table(unjudged_rows(chosen)), files[0].parent.parent)
