"""`lrf finetune`, `lrf validate`, `lrf publish`: from a factorized model to a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lrf_core import telemetry
from lrf_core.artifacts import Analysis, DesignSpace, FinetuneRecord, Override, Plan, Verdict
from lrf_core.commands.asked import asked_for, exit_by, hold, inputs_of, show, show_plans
from lrf_core.commands.options import (
    DataOption,
    DropOption,
    EpochsOption,
    JsonOption,
    ModelArgument,
    NameOption,
    OutOption,
    OverrideByOption,
    OverrideChecksOption,
    OverrideReasonOption,
    SeedOption,
    SpecOption,
    ToOption,
    WeightsOption,
    WorkersOption,
    split_names,
)
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import SpecError
from lrf_core.run.outputs import Outputs
from lrf_core.secrets.verdict_key import verdict_key
from lrf_core.spec import make_spec, read_spec


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

    Reads OUT/factorized/model.keras, writes OUT/candidate/model.keras and OUT/finetune.json; with
    several plans these files of each, in OUT/plans/0 and so on. Run it again after an interruption
    and it goes on from the last checkpoint.

    \b
    Examples:
      lrf finetune model.keras --data digits.npz --out out
      lrf finetune model.keras --data digits.npz --out out --epochs 5
      lrf finetune model.keras --data images/ --out out --workers 4
    """
    import_tensorflow_quietly()
    from rich.console import Group

    from lrf_core.models.compiled import compiled_in
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
    hold(outputs)
    teacher, samples = inputs_of(asked)
    records = []
    for place in outputs.of_plans():
        factorized = load_model(place.factorized)
        candidate, record = finetune_stage(
            factorized,
            teacher,
            samples,
            settings=asked.effective_finetune(),
            seed=asked.seed,
            compiled=compiled_in(asked.model),
        )
        save_model(candidate, place.candidate)
        record.save(place.finetune)
        records.append(record)
    tables = Group(*(curve_table(record) for record in records))
    show_plans(records, as_json, tables, place.candidate if len(records) == 1 else outputs.folder)


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

    The drop must be within its limit with 95% confidence (gate.confidence in a spec); with too few
    samples to tell, the check fails and names how many are needed.

    Reads OUT/candidate/model.keras, writes OUT/verdict.json, OUT/report.html and
    OUT/lineage.json. Ends with 3 when the gate says no.

    With several plans the candidate of each is read, and its verdict written, in OUT/plans/0 and
    so on; the smallest that passed (or where none did, the one with the fewest failed checks) is
    copied to OUT, and the report is about it.

    \b
    Examples:
      lrf validate model.keras --data digits.npz --out out --max-accuracy-drop 0.5
    """
    import_tensorflow_quietly()
    from rich.console import Group

    from lrf_core.models.load import load_model
    from lrf_core.report import plan_rows
    from lrf_core.report.tables import checks_table, plans_table
    from lrf_core.run.outputs import Outcome
    from lrf_core.run.results import write_results
    from lrf_core.run.workflow import release_name
    from lrf_core.stages import pick, validate_all

    settings = dict[str, Any](
        model=model,
        weights=weights,
        data=data,
        out=out,
        seed=seed,
        gate={"max_accuracy_drop": max_accuracy_drop},
    )
    asked, outputs = asked_for(spec, settings)
    verdict_key()  # one that cannot be used is found before the work
    hold(outputs)
    baseline, samples = inputs_of(asked)
    places = outputs.of_plans()
    plans = [Plan.load(place.plan) for place in places]
    records = [FinetuneRecord.load(place.finetune) for place in places]
    candidates = [load_model(place.candidate) for place in places]
    verdicts = validate_all(
        baseline, candidates, samples, gate=asked.effective_gate(), seed=asked.seed
    )
    for place, each in zip(places, verdicts, strict=True):
        each.save(place.verdict)
    picked = pick(verdicts)
    outputs.show(places[picked])
    outputs.override.unlink(missing_ok=True)  # of an earlier verdict
    outcomes = tuple(map(Outcome, plans, records, verdicts))
    analysis, space = Analysis.load(outputs.analysis), DesignSpace.load(outputs.design_space)
    telemetry.record_verdict(verdicts[picked], release_name(asked, analysis))
    write_results(outputs.lineage, outputs.report, analysis, space, outcomes, picked)
    verdict, rows = verdicts[picked], plan_rows(outcomes, picked)
    tables = [plans_table(rows), checks_table(verdict)] if rows else [checks_table(verdict)]
    number = plans[picked].number
    show_plans(verdicts, as_json, Group(*tables), outputs.report, picked=number)
    exit_by(verdict)


def publish(
    out: OutOption = None,
    spec: SpecOption = None,
    to: ToOption = None,
    name: NameOption = None,
    override_by: OverrideByOption = None,
    override_reason: OverrideReasonOption = None,
    override_checks: OverrideChecksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the candidate as an immutable release, if its verdict is a pass.

    Reads OUT/candidate/model.keras and OUT/verdict.json. Each check of the verdict is computed
    again from its numbers; if LRF_VERDICT_KEY_FILE names a key, the verdict must be sealed with it.
    Plan, training and analysis in OUT must be of the run that was judged. With --spec, the verdict
    must have been made by exactly the limits that the spec asks for; how and where to publish is
    taken from it too. Publishing the same model again changes nothing; run it again after an
    interruption, and the release is completed.

    With --override-by and --override-reason a person publishes a model that did not pass: kept in
    OUT/override.json, the report, and the release. No one can override other output shapes, answers
    that are not finite, a model that is not the one judged, or one that was never compared.

    \b
    Examples:
      lrf publish --out out --to file:///srv/models --name digits
      lrf publish --spec spec.yaml
      AWS_ENDPOINT_URL=http://localhost:9000 lrf publish --out out --to s3://models/vision
      lrf publish --out out --override-by "A. Miller" --override-checks litert_latency_ratio \\
        --override-reason "served on a GPU only"
    """
    import_tensorflow_quietly()
    from lrf_core.models.load import load_model
    from lrf_core.report.tables import published
    from lrf_core.run.workflow import publish_by
    from lrf_core.stages.refuse import refuse_other_limits

    written = read_spec(spec) if spec else {"model": "", "data": ""}
    asked = make_spec(written, {"out": out, "publish": {"to": to, "name": name}})
    outputs = Outputs(Path(asked.out))
    hold(outputs)
    verdict = Verdict.load(outputs.verdict)
    if spec:
        refuse_other_limits(verdict, asked.effective_gate())
    analysis = Analysis.load(outputs.analysis)
    override = _override(
        outputs, verdict, override_by, override_reason, split_names(override_checks)
    )
    release = publish_by(
        asked,
        load_model(outputs.candidate),
        verdict,
        analysis,
        outputs.attachments(),
        override,
        asked.effective_gate() if spec else None,
    )
    show(release, as_json, published(release), release.location)


def _override(
    outputs: Outputs,
    verdict: Verdict,
    by: str | None,
    reason: str | None,
    checks: list[str] | None,
) -> Override | None:
    """The override that flags ask for, written beside the verdict and into report and lineage."""
    if by is None and reason is None and checks is None:
        return None
    if by is None or reason is None:
        raise SpecError("an override needs both --override-by and --override-reason")
    from lrf_core.report import write_report
    from lrf_core.run.outputs import write_lineage
    from lrf_core.stages import override_of

    override = override_of(verdict, by=by, reason=reason, checks=checks or ())
    analysis, plan = Analysis.load(outputs.analysis), Plan.load(outputs.plan)
    space = DesignSpace.load(outputs.design_space)
    record = FinetuneRecord.load(outputs.finetune)
    override.save(outputs.override)
    write_lineage(outputs.lineage, analysis, space, plan, record, verdict, override)
    write_report(
        outputs.report,
        analysis=analysis,
        plan=plan,
        finetune=record,
        verdict=verdict,
        override=override,
    )
    return override
