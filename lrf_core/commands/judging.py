"""`lrf finetune`, `lrf validate`, `lrf publish`: from a factorized model to a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrf_core.commands.flags import JsonOption, by_spec
from lrf_core.commands.output import exit_by, lock_outputs, print_artifact, print_plans
from lrf_core.console.quiet import import_tensorflow_quietly
from lrf_core.errors import SpecError
from lrf_core.secrets.verdict_key import verdict_key
from lrf_core.spec import Spec

if TYPE_CHECKING:
    from lrf_core.artifacts import Analysis, Override, Verdict
    from lrf_core.run.outputs import Outputs

OverrideByOption = Annotated[
    str | None, typer.Option(help="Who decides to publish although checks failed.")
]
OverrideReasonOption = Annotated[str | None, typer.Option(help="Why; recorded in the release.")]
OverrideChecksOption = Annotated[
    str | None,
    typer.Option(help="Names of the checks that may fail, comma-separated.  [default: all failed]"),
]


@by_spec("model", "weights", "data", "out", "finetune.epochs", "finetune.workers")
def finetune(spec: Spec, as_json: JsonOption = False) -> None:
    """Train the factorized model once, with the original as its teacher.

    Reads OUT/factorized/model.keras, writes OUT/candidate/model.keras and OUT/finetune.json; with
    several plans these files of each, in OUT/plans/0 and so on. After an interruption, run the same
    command again, and it goes on from the last checkpoint.

    \b
    Examples:
      lrf finetune model.keras --data digits.npz --out out
      lrf finetune model.keras --data digits.npz --out out --epochs 5
      lrf finetune model.keras --data images/ --out out --workers 4
    """
    import_tensorflow_quietly()
    from rich.console import Group

    from lrf_core.models.load import load_model, save_model
    from lrf_core.report.tables import curve_table
    from lrf_core.run import steps

    outputs = lock_outputs(spec)
    teacher, data = steps.load_inputs(spec)
    records = []
    for place in outputs.of_plans():
        model, record = steps.finetune(spec, load_model(place.factorized), teacher, data)
        save_model(model, place.candidate)
        record.save(place.finetune)
        records.append(record)
    tables = Group(*(curve_table(record) for record in records))
    print_plans(records, as_json, tables, place.candidate if len(records) == 1 else outputs.folder)


@by_spec("model", "weights", "data", "out", "gate.max_accuracy_drop")
def validate(spec: Spec, as_json: JsonOption = False) -> None:
    """Judge the candidate against the original on test samples.

    The drop must be within its limit with 95% confidence (gate.confidence). With too few samples to
    tell, the check fails and names the number of samples needed.

    Reads OUT/candidate/model.keras, writes OUT/verdict.json, OUT/report.html and
    OUT/lineage.json. Exit code: 3 if the candidate failed the gate.

    With several plans, the candidate of each is read, and its verdict written, in OUT/plans/0 and
    so on. The smallest that passed (if none did, the one with the fewest failed checks) is copied
    to OUT, and the report is about it.

    \b
    Examples:
      lrf validate model.keras --data digits.npz --out out --max-accuracy-drop 0.5
    """
    import_tensorflow_quietly()
    from rich.console import Group

    from lrf_core.artifacts import Analysis, DesignSpace, FinetuneRecord, Plan
    from lrf_core.models.load import load_model
    from lrf_core.report import plan_rows
    from lrf_core.report.tables import checks_table, plans_table
    from lrf_core.run import steps

    verdict_key()  # one that cannot be used is found before the work
    outputs = lock_outputs(spec)
    baseline, data = steps.load_inputs(spec)
    places = outputs.of_plans()
    candidates = [
        steps.Candidate(
            Plan.load(place.plan),
            FinetuneRecord.load(place.finetune),
            load_model(place.candidate),
        )
        for place in places
    ]
    judgement = steps.judge(spec, baseline, candidates, data)
    verdicts = [outcome.verdict for outcome in judgement.outcomes]
    for place, verdict in zip(places, verdicts, strict=True):
        verdict.save(place.verdict)
    outputs.copy_from(places[judgement.selected])
    outputs.override.unlink(missing_ok=True)  # of an earlier verdict
    analysis, space = Analysis.load(outputs.analysis), DesignSpace.load(outputs.design_space)
    steps.record_judgement(spec, judgement, analysis, space, outputs.lineage, outputs.report)
    rows = plan_rows(judgement.outcomes, judgement.selected)
    tables = [*([plans_table(rows)] if rows else []), checks_table(judgement.verdict)]
    number = judgement.outcome.plan.number
    print_plans(verdicts, as_json, Group(*tables), outputs.report, picked=number)
    exit_by(judgement.verdict)


@by_spec("out", "publish.to", "publish.name", needs=(), passes_file=True)
def publish(
    spec: Spec,
    spec_file: Path | None,
    override_by: OverrideByOption = None,
    override_reason: OverrideReasonOption = None,
    override_checks: OverrideChecksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the candidate as an immutable release, if its verdict is a pass.

    Reads OUT/candidate/model.keras and OUT/verdict.json. Each check of the verdict is computed
    again from its numbers; if LRF_VERDICT_KEY_FILE names a key, the verdict must be sealed with it.
    Plan, training and analysis in OUT must belong to the run that was judged. With --spec, the
    verdict must have been made by exactly the limits of the spec. Publishing the same model again
    changes nothing; after an interruption, run the same command again, and the release is
    completed.

    With --override-by and --override-reason a user publishes a model that did not pass. The
    decision is recorded in OUT/override.json, the report and the release. Not to be overridden:
    other output shapes, outputs that are not finite, a model that is not the one judged, and one
    that was never compared.

    \b
    Examples:
      lrf publish --out out --to file:///srv/models --name digits
      lrf publish --spec spec.yaml
      AWS_ENDPOINT_URL=http://localhost:9000 lrf publish --out out --to s3://models/vision
      lrf publish --out out --override-by "A. Miller" --override-checks litert_latency_ratio \\
        --override-reason "served on a GPU only"
    """
    import_tensorflow_quietly()
    from lrf_core.artifacts import Analysis, Verdict
    from lrf_core.models.load import load_model
    from lrf_core.report.tables import published
    from lrf_core.run import steps
    from lrf_core.stages.refuse import check_limits_match

    outputs = lock_outputs(spec)
    verdict = Verdict.load(outputs.verdict)
    gate = spec.effective_gate() if spec_file else None
    check_limits_match(verdict, gate)
    analysis = Analysis.load(outputs.analysis)
    override = _override(outputs, analysis, verdict, override_by, override_reason, override_checks)
    release = steps.publish(
        spec,
        load_model(outputs.candidate),
        verdict,
        analysis,
        outputs.attachments(),
        override,
        gate=gate,
    )
    print_artifact(release, as_json, published(release), release.location)


def _override(
    outputs: Outputs,
    analysis: Analysis,
    verdict: Verdict,
    by: str | None,
    reason: str | None,
    checks: str | None,
) -> Override | None:
    """The override of the flags, written beside the verdict and into report and lineage."""
    if by is None and reason is None and checks is None:
        return None
    if by is None or reason is None:
        raise SpecError("an override needs both --override-by and --override-reason")
    from lrf_core.artifacts import DesignSpace, FinetuneRecord, Plan, PlanOutcome
    from lrf_core.run.results import write_results
    from lrf_core.stages import override_of

    names = [name.strip() for name in checks.split(",")] if checks else ()
    override = override_of(verdict, by=by, reason=reason, checks=names)
    space = DesignSpace.load(outputs.design_space)
    plan, record = Plan.load(outputs.plan), FinetuneRecord.load(outputs.finetune)
    override.save(outputs.override)
    outcomes = [PlanOutcome(plan, record, verdict)]
    write_results(outputs.lineage, outputs.report, analysis, space, outcomes, 0, override)
    return override
