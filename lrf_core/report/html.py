"""The report of one compression: a single HTML file that needs no network and no script."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lrf_core.artifacts import (
    Analysis,
    Artifact,
    Check,
    Choice,
    FinetuneRecord,
    LayerRecord,
    Override,
    Plan,
    Verdict,
)
from lrf_core.files.atomic import write_atomically
from lrf_core.report import text
from lrf_core.report.chart import learning_curve
from lrf_core.report.plans import PlanRow
from lrf_core.report.templates import templates

_TEMPLATE = "report.html.j2"
_WORST_CLASSES = 10


@dataclass(frozen=True)
class LayerRow:
    """One explored layer in words; bars are percent of the largest layer."""

    name: str
    kind: str
    kernel: str
    method: str
    ranks: str
    params: Bars
    macs: Bars
    error: str


@dataclass(frozen=True)
class Bars:
    """A cost before and after, in words and as bars (percent of the longest bar)."""

    before: str
    after: str
    kept: str
    before_width: float
    after_width: float


@dataclass(frozen=True)
class Digest:
    """One line of the lineage: what it is, and its sha256 (hex)."""

    name: str
    sha256: str


def write_report(
    path: str | Path,
    *,
    analysis: Analysis,
    plan: Plan,
    finetune: FinetuneRecord | None,
    verdict: Verdict,
    override: Override | None = None,
    plans: Sequence[PlanRow] = (),
) -> Path:
    """Write the report of one compression as a self-contained HTML file; returns the file.

    Args:
        finetune: None when the model was not fine-tuned.
        override: a user's decision to publish a model that did not pass.
        plans: all plans that were judged, see `plan_rows`; the report is about the picked one.

    Raises:
        ArtifactError: the file cannot be written.
    """
    target = Path(path)
    content = _render(analysis, plan, finetune, verdict, override, plans)
    write_atomically(target, content.encode())
    return target


def _render(
    analysis: Analysis,
    plan: Plan,
    finetune: FinetuneRecord | None,
    verdict: Verdict,
    override: Override | None,
    plans: Sequence[PlanRow],
) -> str:
    environment = templates()
    environment.filters["signs"] = _signs
    return environment.get_template(_TEMPLATE).render(
        analysis=analysis,
        plan=plan,
        finetune=finetune,
        verdict=verdict,
        override=override,
        plans=plans,
        headline=_headline(verdict),
        judged=_moment(verdict.lineage.created),
        figures=text.figures(verdict),
        interval=text.interval(verdict),
        metric_lines=[text.metric_line(change) for change in verdict.metrics],
        signed=text.signed,
        classes=verdict.classes[:_WORST_CLASSES],
        predicted=text.predicted(plan, verdict),
        failed=[(text.check_title(check), _why(check)) for check in verdict.failed()],
        checks=[(text.check_title(check), check) for check in verdict.checks],
        not_measured=text.NOT_MEASURED,
        rows=_layer_rows(plan, analysis),
        replaced=len(plan.replaced()),
        left_alone=[layer for layer in analysis.layers if not layer.methods],
        charts=learning_curve(finetune) if finetune else (),
        trained=text.trained(finetune) if finetune else "",
        digests=_digests(analysis, plan, finetune, verdict),
        settings=_settings(analysis, plan, finetune, verdict),
    )


def _moment(created: str) -> str:
    return f"{datetime.fromisoformat(created).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _signs(words: str) -> str:
    """Plain-text signs as a printed page has them."""
    for plain, sign in (("<=", "\u2264"), (">=", "\u2265")):
        words = words.replace(plain, sign)
    # Only a minus before a number and a times after one, not those within words.
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", re.sub(r"(?<=\d)x(?=\d|\s)", "\u00d7", words))


def _headline(verdict: Verdict) -> str:
    """What came out, in one sentence."""
    before, after = verdict.baseline, verdict.candidate
    params = text.ratio(before.cost.params, after.cost.params, "fewer", "more")
    macs = text.ratio(before.cost.macs, after.cost.macs, "fewer", "more")
    sizes = f"{params} parameters and {macs} multiply-adds"
    if after.accuracy is None or before.accuracy is None:
        return f"{sizes}; the accuracy could not be compared."
    return (
        f"{sizes}; accuracy {before.accuracy:.2f}% before and {after.accuracy:.2f}% after, on "
        f"{after.samples:,} test samples."
    )


def _why(check: Check) -> str:
    measured = text.NOT_MEASURED if check.measured is None else check.measured
    return f"{measured}, limit {check.limit}" + (f" ({check.note})" if check.note else "")


def _layer_rows(plan: Plan, analysis: Analysis) -> list[LayerRow]:
    known = {layer.name: layer for layer in analysis.layers}
    most_params = max((choice.before.params for choice in plan.choices), default=1)
    most_macs = max((choice.before.macs for choice in plan.choices), default=1)
    return [
        _layer_row(choice, known.get(choice.layer), most_params, most_macs)
        for choice in plan.choices
    ]


def _layer_row(
    choice: Choice, layer: LayerRecord | None, most_params: int, most_macs: int
) -> LayerRow:
    before, after, candidate = choice.before, choice.after(), choice.candidate
    return LayerRow(
        name=choice.layer,
        kind=layer.kind if layer else "-",
        kernel=text.kernel(layer.kernel_shape) if layer else "-",
        method=candidate.technique if candidate else "",
        ranks=text.ranks(candidate.ranks) if candidate else "",
        params=_bars(before.params, after.params, most_params),
        macs=_bars(before.macs, after.macs, most_macs),
        error=f"{candidate.error:.2g}" if candidate else "",
    )


def _bars(before: int, after: int, most: int) -> Bars:
    longest = max(most, 1)
    return Bars(
        before=f"{before:,}",
        after=f"{after:,}",
        kept=text.kept(before, after),
        before_width=round(100.0 * before / longest, 2),
        # A method may also be chosen for one cost at the price of the other.
        after_width=round(min(100.0 * after / longest, 100.0), 2),
    )


def _digests(
    analysis: Analysis, plan: Plan, finetune: FinetuneRecord | None, verdict: Verdict
) -> list[Digest]:
    digests = [
        Digest("original model", verdict.baseline_digest),
        Digest("data", verdict.lineage.inputs.get("data", "not recorded")),
        Digest("analysis", analysis.digest()),
        Digest("plan", plan.digest()),
        Digest("factorized model, before fine-tuning", plan.factorized_digest),
    ]
    if finetune:
        digests.append(Digest("fine-tuning record", finetune.digest()))
    return [
        *digests,
        Digest("candidate model, as judged", verdict.candidate_digest),
        Digest("verdict", verdict.digest()),
    ]


def _settings(
    analysis: Analysis, plan: Plan, finetune: FinetuneRecord | None, verdict: Verdict
) -> Mapping[str, str]:
    artifacts: dict[str, Artifact | None] = {
        "analyze": analysis,
        "decompose": plan,
        "finetune": finetune,
        "validate": verdict,
    }
    return {
        stage: json.dumps(artifact.lineage.settings, indent=2)
        for stage, artifact in artifacts.items()
        if artifact
    }
