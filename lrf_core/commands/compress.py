"""`lrf compress`: the whole way."""

from __future__ import annotations

from typing import Any

import typer

from lrf_core.commands.asked import asked_for, print_json
from lrf_core.commands.options import (
    BytesOption,
    CacheOption,
    DataOption,
    DropOption,
    EpochsOption,
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
    NameOption,
    NoCacheOption,
    OutOption,
    ParamsOption,
    PlansOption,
    PolicyOption,
    SamplesOption,
    SeedOption,
    SimilarityOption,
    SpecOption,
    ToOption,
    WeightsOption,
    WorkersOption,
    cache_setting,
    goal_settings,
    split_names,
)
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import EXIT_GATE_REFUSED


def compress(
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
    methods: MethodsOption = None,
    samples: SamplesOption = None,
    latency: LatencyOption = None,
    policy: PolicyOption = None,
    minimize: MinimizeOption = None,
    plans: PlansOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    to: ToOption = None,
    name: NameOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole way: analyze, explore, decompose, finetune, validate, publish.

    Several plans (--plans) are each fine-tuned once, in OUT/plans/0 and so on; the smallest that
    passes the gate is copied to OUT and published.

    Run it again after an interruption and it goes on with the stage that was not finished; layers
    that were scored are not scored again.

    \b
    Examples:
      lrf compress model.keras --data images/ --max-accuracy-drop 1.0 --out out
      lrf compress model.keras --data digits.npz --params-reduction 0.5 --epochs 0
      lrf compress model.keras --data images/ --max-accuracy-drop 0.5 --plans 5
      lrf compress --spec spec.yaml --to s3://models/vision

    \b
    Ends with 0 when the model passed and is published, 3 when the gate said no, 2 for bad
    input, 1 for anything else.
    """
    import_tensorflow_quietly()
    from lrf_core.run.summary import print_run, run_as_json
    from lrf_core.run.workflow import compress as compress_whole_way

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
        explore={
            "methods": split_names(methods),
            "samples": samples,
            "cache": cache_setting(cache, no_cache),
            "latency": latency,
        },
        decompose={"policy": policy, "minimize": minimize, "plans": plans},
        finetune={"epochs": epochs, "workers": workers},
        publish={"to": to, "name": name},
    )
    asked, _ = asked_for(spec, settings)
    run = compress_whole_way(asked)
    if as_json:
        print_json(run_as_json(run))
    else:
        print_run(run)
    if run.release is None:
        raise typer.Exit(EXIT_GATE_REFUSED)
