"""`lrf finetune`, `lrf validate`, `lrf publish`: from a factorized model to a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrf_core.artifacts import Analysis, FinetuneRecord, Plan, Verdict
from lrf_core.commands.asked import asked_for, exit_by, inputs_of, show
from lrf_core.commands.options import (
    DataOption,
    DropOption,
    EpochsOption,
    JsonOption,
    ModelArgument,
    NameOption,
    OutOption,
    SeedOption,
    SpecOption,
    ToOption,
    WeightsOption,
    WorkersOption,
)
from lrf_core.outputs import Outputs
from lrf_core.spec import make_spec


def finetune(
    model: ModelArgument = None,
    weights: WeightsOption = None,
    data: DataOption = None,
    spec: SpecOption = None,
    out: OutOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the factorized model once, with the original as teacher.

    Reads OUT/factorized/model.keras, writes OUT/candidate/model.keras and OUT/finetune.json.

    \b
    Examples:
      lrf finetune model.keras --data digits.npz --out out
      lrf finetune model.keras --data digits.npz --out out --epochs 5
      lrf finetune model.keras --data images/ --out out --workers 4
    """
    from lrf_core.models.load import load_model, save_model
    from lrf_core.report.tables import curve_table
    from lrf_core.stages import finetune as finetune_stage

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        finetune={"epochs": epochs, "workers": workers},
    )
    asked, outputs = asked_for(spec, settings)
    teacher, samples = inputs_of(asked)
    factorized = load_model(outputs.factorized)
    candidate, record = finetune_stage(
        factorized, teacher, samples, settings=asked.finetune, seed=asked.seed
    )
    save_model(candidate, outputs.candidate)
    record.save(outputs.finetune)
    show(record, as_json, curve_table(record), outputs.candidate)


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
    asked, outputs = asked_for(spec, settings)
    baseline, samples = inputs_of(asked)
    candidate = load_model(outputs.candidate)
    verdict = validate_stage(
        baseline, candidate, samples, gate=asked.effective_gate(), seed=asked.seed
    )
    verdict.save(outputs.verdict)
    analysis, plan = Analysis.load(outputs.analysis), Plan.load(outputs.plan)
    record = FinetuneRecord.load(outputs.finetune)
    write_lineage(outputs.lineage, analysis, plan, record, verdict)
    write_report(outputs.report, analysis=analysis, plan=plan, finetune=record, verdict=verdict)
    show(verdict, as_json, checks_table(verdict), outputs.report)
    exit_by(verdict)


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
    show(release, as_json, f"published {release.name} {release.version}", release.location)
