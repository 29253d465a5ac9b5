"""`lrf ...`: each command translates its flags into a spec, calls a stage, and shows the result."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lrf_core import commands_export, commands_frontier, commands_profile, progress
from lrf_core.artifacts import Analysis, FinetuneRecord, Plan, Verdict
from lrf_core.errors import EXIT_FAILURE, EXIT_GATE_REFUSED, EXIT_INTERRUPTED, LrfError, SpecError
from lrf_core.options import (
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
    PolicyOption,
    SamplesOption,
    SeedOption,
    ShardOption,
    SimilarityOption,
    SpacesOption,
    SpecOption,
    ToOption,
    WeightsOption,
    cache_setting,
    goal_settings,
    split_names,
)
from lrf_core.outputs import Outputs
from lrf_core.quiet import import_tensorflow_quietly
from lrf_core.spec import Spec, make_spec, read_spec

if TYPE_CHECKING:
    import keras

    from lrf_core.data import Data

app = typer.Typer(
    help="Low-rank compression of Keras CNNs: smaller models that passed a gate.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
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
    epochs: EpochsOption = None,
    to: ToOption = None,
    name: NameOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """The whole way: analyze, explore, decompose, finetune, validate, publish.

    Run it again after an interruption and it goes on with the stage that was not finished; layers
    that were scored are not scored again.

    \b
    Examples:
      lrf compress model.keras --data images/ --max-accuracy-drop 1.0 --out out
      lrf compress model.keras --data digits.npz --params-reduction 0.5 --epochs 0
      lrf compress --spec spec.yaml --to s3://models/vision

    \b
    Ends with 0 when the model passed and is published, 3 when the gate said no, 2 for bad
    input, 1 for anything else.
    """
    import_tensorflow_quietly()
    from lrf_core.summary import print_run, run_as_json
    from lrf_core.workflow import compress as compress_whole_way

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
        decompose={"policy": policy, "minimize": minimize},
        finetune={"epochs": epochs},
        publish={"to": to, "name": name},
    )
    asked, _ = _asked(spec, settings)
    run = compress_whole_way(asked)
    if as_json:
        _print_json(run_as_json(run))
    else:
        print_run(run)
    _exit_by(run.verdict)


@app.command()
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
    asked, outputs = _asked(spec, settings)
    network, samples = _inputs(asked)
    analysis = analyze_stage(network, samples, settings=asked.explore, seed=asked.seed)
    analysis.save(outputs.analysis)
    _show(analysis, as_json, inventory_table(analysis), outputs.analysis)


@app.command()
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
    asked, outputs = _asked(spec, settings)
    analysis = Analysis.load(outputs.analysis)
    network, inputs = _inputs(asked)
    wanted = measured_first(
        asked.effective_explore(), network, analysis.eligible(), outputs.latency
    )
    space = explore_stage(network, inputs, analysis, settings=wanted, shard=part, seed=asked.seed)
    written = space.save(outputs.design_space_of(part))
    found = f"{len(space.candidates)} candidates of {len(space.layers)} layers"
    _show(space, as_json, found, written)


@app.command()
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
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose one candidate per layer for the goal and build the factorized model.

    Reads OUT/design_space.parquet, or the files of all shards, which it joins to that one; writes
    OUT/plan.json and OUT/factorized/model.keras.

    \b
    Examples:
      lrf decompose model.keras --data digits.npz --out out --params-reduction 0.5
      lrf decompose model.keras --data digits.npz --out out --similarity 0.95 --policy threshold
      lrf decompose --spec spec.yaml --space a/design_space.parquet --space b/design_space.parquet
      lrf decompose model.keras --data digits.npz --max-weight-bytes 200000 --max-macs 3000000
      lrf decompose model.keras --data digits.npz --max-predicted-loss 0.02 --minimize macs
    """
    from lrf_core.exploration.merge import read_design_space
    from lrf_core.models.load import save_model
    from lrf_core.report.tables import layers_table
    from lrf_core.stages import decompose as decompose_stage

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
        decompose={"policy": policy, "minimize": minimize},
    )
    asked, outputs = _asked(spec, settings)
    analysis = Analysis.load(outputs.analysis)
    network, samples = _inputs(asked)
    whole = read_design_space(outputs.folder, space or ())
    plan, factorized = decompose_stage(
        network,
        samples,
        [whole],
        asked.effective_goal(),
        settings=asked.effective_decompose(),
        seed=asked.seed,
    )
    whole.save(outputs.design_space)
    save_model(factorized, outputs.factorized)
    plan.save(outputs.plan)
    _show(plan, as_json, layers_table(plan, analysis), outputs.plan)


@app.command()
def finetune(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the factorized model once, with the original as teacher.

    Reads OUT/factorized/model.keras, writes OUT/candidate/model.keras and OUT/finetune.json.

    \b
    Examples:
      lrf finetune model.keras --data digits.npz --out out
      lrf finetune model.keras --data digits.npz --out out --epochs 5
    """
    from lrf_core.models.load import load_model, save_model
    from lrf_core.report.tables import curve_table
    from lrf_core.stages import finetune as finetune_stage

    settings = dict[str, Any](
        model=model, weights=weights, data=data, out=out, seed=seed, finetune={"epochs": epochs}
    )
    asked, outputs = _asked(spec, settings)
    teacher, samples = _inputs(asked)
    factorized = load_model(outputs.factorized)
    candidate, record = finetune_stage(
        factorized, teacher, samples, settings=asked.finetune, seed=asked.seed
    )
    save_model(candidate, outputs.candidate)
    record.save(outputs.finetune)
    _show(record, as_json, curve_table(record), outputs.candidate)


@app.command()
def validate(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    max_accuracy_drop: DropOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the candidate against the original on test samples.

    Reads OUT/candidate/model.keras, writes OUT/verdict.json, OUT/report.html and
    OUT/lineage.json. Ends with 3 when the gate says no.

    \b
    Examples:
      lrf validate model.keras --data digits.npz --out out --max-accuracy-drop 0.5
    """
    from lrf_core.models.load import load_model
    from lrf_core.outputs import write_lineage
    from lrf_core.report import write_report
    from lrf_core.report.tables import checks_table
    from lrf_core.stages import validate as validate_stage

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        gate={"max_accuracy_drop": max_accuracy_drop},
    )
    asked, outputs = _asked(spec, settings)
    baseline, samples = _inputs(asked)
    candidate = load_model(outputs.candidate)
    verdict = validate_stage(
        baseline, candidate, samples, gate=asked.effective_gate(), seed=asked.seed
    )
    verdict.save(outputs.verdict)
    analysis, plan = Analysis.load(outputs.analysis), Plan.load(outputs.plan)
    record = FinetuneRecord.load(outputs.finetune)
    write_lineage(outputs.lineage, analysis, plan, record, verdict)
    write_report(outputs.report, analysis=analysis, plan=plan, finetune=record, verdict=verdict)
    _show(verdict, as_json, checks_table(verdict), outputs.report)
    _exit_by(verdict)


@app.command()
def publish(
    out: OutOption = None,
    to: ToOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the candidate as an immutable release, if its verdict is a pass.

    Reads OUT/candidate/model.keras and OUT/verdict.json.

    \b
    Examples:
      lrf publish --out out --to file:///srv/models --name digits
      AWS_ENDPOINT_URL=http://localhost:9000 lrf publish --out out --to s3://models/vision
    """
    from lrf_core.models.load import load_model
    from lrf_core.stages import publish as publish_stage
    from lrf_core.workflow import release_name, store_uri

    outputs = Outputs(Path(out or "out"))
    verdict = Verdict.load(outputs.verdict)
    analysis = Analysis.load(outputs.analysis)
    asked = make_spec(
        {"model": str(outputs.candidate), "data": "", "out": str(outputs.folder)},
        {"publish": {"to": to, "name": name}},
    )
    release = publish_stage(
        load_model(outputs.candidate),
        verdict,
        store_uri(asked),
        name=release_name(asked, analysis),
        attachments=outputs.attachments(),
    )
    _show(release, as_json, f"published {release.name} {release.version}", release.location)


app.command()(commands_export.export)
app.command()(commands_profile.profile)
app.command()(commands_frontier.frontier)


def main() -> None:
    """`lrf`, with progress on standard error."""
    with progress.shown():
        run_command_line(app)


def run_command_line(app: typer.Typer) -> None:
    """Run an app; a known error is one line on standard error, and its exit code."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    try:
        logging.getLogger("lrf").setLevel(_log_level())
        app()
    except LrfError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:
            _say("interrupted; run the same command again to go on")
        raise
    except Exception as error:
        logging.getLogger("lrf").debug("unexpected", exc_info=True)
        _say(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        sys.exit(EXIT_FAILURE)


def _log_level() -> str:
    """From the environment: "debug" says which layer is scored, and where an error came from."""
    level = os.environ.get("LRF_LOG_LEVEL", "info").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise SpecError(f"LRF_LOG_LEVEL is {level!r}; set debug, info, warning or error")
    return level


def _say(line: str) -> None:
    sys.stderr.write(f"lrf: {line}\n")


def _asked(file: Path | None, settings: dict[str, Any]) -> tuple[Spec, Outputs]:
    """The spec of a command and its folder. Raises SpecError naming the flags that are missing."""
    written = read_spec(file) if file else {}
    for key, flag in (("model", "MODEL"), ("data", "--data")):
        if not written.get(key) and not settings.get(key):
            raise SpecError(f"{flag} is missing; give it, or --spec with a '{key}:' in it")
    spec = make_spec(written, settings)
    return spec, Outputs(Path(spec.out))


def _inputs(spec: Spec) -> tuple[keras.Model, Data]:
    import_tensorflow_quietly()
    from lrf_core.data import open_data
    from lrf_core.models.load import load_model

    model = load_model(spec.model, spec.weights)
    return model, open_data(spec.data, model, spec.seed)


def _show(artifact: Any, as_json: bool, table: Any, where: str | Path) -> None:
    from lrf_core.summary import print_for_people

    if as_json:
        _print_json(artifact.model_dump(mode="json"))
    else:
        print_for_people(table, where)


def _print_json(content: Any) -> None:
    json.dump(content, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _exit_by(verdict: Verdict) -> None:
    if not verdict.passed:
        raise typer.Exit(EXIT_GATE_REFUSED)


if __name__ == "__main__":
    main()
