"""Tables for the terminal; they also read well where lines are plain text of 80 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from lrf_core.artifacts import Analysis, Check, FinetuneRecord, Plan, Release, Verdict
from lrf_core.redaction import shown
from lrf_core.report import text
from lrf_core.report.plans import PlanRow

if TYPE_CHECKING:
    from lrf_core.exploration.frontier import FrontierPoint
    from lrf_core.latency import LatencyTable
    from lrf_core.releases import CatalogEntry, CatalogLine
_LOSSES = frozenset({"sensitivity", "error"})


def inventory_table(analysis: Analysis) -> Table:
    """Every layer with a kernel: what it costs, and its methods or why it stays as it is."""
    baseline = analysis.baseline
    accuracy = "no labels" if baseline.accuracy is None else f"{baseline.accuracy:.2f}% accurate"
    table = _table(
        f"{analysis.model_name}: {baseline.cost.params:,} parameters, "
        f"{baseline.cost.macs:,} MACs, {accuracy}",
        _words("layer"),
        _word("kernel"),
        _number("params"),
        _number("share"),
        _number("MACs"),
        _words("methods"),
    )
    for layer in analysis.layers:
        if layer.kernel_shape:
            _add(
                table,
                layer.name,
                text.kernel(layer.kernel_shape),
                f"{layer.cost.params:,}",
                f"{layer.share:.1%}",
                f"{layer.cost.macs:,}",
                ", ".join(layer.methods) or layer.reason,
            )
    others = [layer for layer in analysis.layers if not layer.kernel_shape]
    if others:
        kinds = ", ".join(sorted({layer.kind for layer in others}))
        params = sum(layer.cost.params for layer in others)
        table.caption = Text(f"and {len(others)} without a kernel ({kinds}): {params:,} parameters")
    return table


def latency_table(table: LatencyTable, layers: Collection[str]) -> Table:
    """What was measured of these layers: as they are, and the range of their chains."""
    shown = _table(
        f"{table.machine.described()}, {table.runtime}, one thread",
        _words("layers"),
        _words("geometry"),
        _number("ms"),
        _number("p95"),
        _number("chains"),
        _number("from ms"),
        _number("to ms"),
    )
    for entry in table.geometries:
        here = [name for name in entry.layers if name in layers]
        if not here:
            continue
        times = [p.median_ms for form in entry.forms for box in form.boxes for p in box.points]
        _add(
            shown,
            ", ".join(here),
            entry.geometry.described(),
            f"{entry.own.median_ms:.3f}" if entry.own else "-",
            f"{entry.own.p95_ms:.3f}" if entry.own else "-",
            f"{len(times):,}",
            f"{min(times):.3f}" if times else "-",
            f"{max(times):.3f}" if times else "-",
        )
    shown.caption = "ms: median of one sample of the layer as it is; from, to: of its chains"
    reasons = [
        reason
        for entry in table.geometries
        for reason in (entry.reason, *(form.reason for form in entry.forms))
        if reason and set(entry.layers) & set(layers)
    ]
    if reasons:
        shown.caption += f"\n-: {reasons[0]}"
    return shown


def layers_table(plan: Plan, analysis: Analysis) -> Table:
    """What happens to each explored layer, and to the whole model."""
    known = {layer.name: layer for layer in analysis.layers}
    table = _table(
        "Layers",
        _words("layer"),
        _word("kind"),
        _word("kernel"),
        _word("method"),
        _word("ranks"),
        _number("before"),
        _number("after"),
        _number("kept"),
    )
    for choice in plan.choices:
        layer, candidate = known.get(choice.layer), choice.candidate
        before, after = choice.before.params, choice.after().params
        _add(
            table,
            choice.layer,
            layer.kind if layer else "-",
            text.kernel(layer.kernel_shape) if layer else "-",
            candidate.technique if candidate else "as it is",
            text.ranks(candidate.ranks) if candidate else "-",
            f"{before:,}",
            f"{after:,}",
            text.kept(before, after),
        )
    before, after = plan.before.params, plan.after.params
    table.add_section()
    _add(table, "whole model", *4 * ("",), f"{before:,}", f"{after:,}", text.kept(before, after))
    table.caption = _plain(f"before, after, kept: parameters{_predicted(plan)}")
    return table


def frontier_table(
    model: str, against: str, minimize: str, points: Sequence[FrontierPoint]
) -> Table:
    """The best plan at every size: what it keeps of one cost, all totals, layers replaced."""
    from lrf_core.exploration.resources import QUANTITIES

    shown = [
        name for name in QUANTITIES if name in points[0].totals and name not in _LOSSES - {minimize}
    ]
    table = _table(
        f"{model}: least {QUANTITIES[minimize].title} by {QUANTITIES[against].title}",
        _number("kept"),
        *(_number(QUANTITIES[name].title) for name in shown),
        _number("layers"),
    )
    for point in points:
        _add(
            table,
            f"{point.kept:.1%}",
            *(
                f"{point.totals[name]:,.0f}"
                if QUANTITIES[name].whole
                else f"{point.totals[name]:.4g}"
                for name in shown
            ),
            str(len(point.replaced)),
        )
    table.caption = f"kept: of the {QUANTITIES[against].title}; layers: how many are replaced"
    return table


def curve_table(record: FinetuneRecord) -> Table:
    """The learning curve; epoch 0 is the state before training."""
    table = _table(
        f"Fine-tuned on {record.samples:,} samples, {record.steps:,} steps, {record.seconds:.0f} s",
        _number("epoch"),
        _number("loss"),
        _number("held-out loss"),
        _number("held-out accuracy"),
        _word(""),
    )
    for point in record.curve:
        _add(
            table,
            str(point.epoch),
            f"{point.loss:.4f}",
            f"{point.validation_loss:.4f}",
            f"{point.validation_accuracy:.2f}%",
            "kept" if point.epoch == record.best_epoch else "",
        )
    table.caption = _plain(text.trained(record))
    return table


def before_after_table(verdict: Verdict, plan: Plan) -> Table:
    """What changed from the baseline to the candidate, beside what was predicted."""
    table = _table(
        "Before and after", _word(""), _number("before"), _number("after"), _number("change")
    )
    for figure in text.figures(verdict):
        _add(table, figure.label, figure.before, figure.after, figure.change)
    lines = [
        f"{verdict.candidate.samples:,} test samples; 95% interval of the accuracy change: "
        f"{text.interval(verdict)}"
    ]
    if verdict.agreement is not None:
        lines.append(f"same class from both models: {verdict.agreement:.2f}% of them")
    if predicted := text.predicted(plan, verdict):
        lines.append(predicted)
    table.caption = "\n".join(lines)
    return table


def plans_table(rows: Sequence[PlanRow]) -> Table:
    """Several plans beside each other, and which of them the run is about."""
    table = _table(
        "Plans",
        _number("plan"),
        _number("params"),
        _number("MACs"),
        _number("expected"),
        _number("came out"),
        _words("gate"),
        _word(""),
    )
    for row in rows:
        mark = ("picked" if row.passed else "shown here") if row.picked else ""
        _add(
            table,
            str(row.number),
            row.params,
            row.macs,
            row.expected,
            row.came_out,
            row.answer,
            mark,
        )
    table.caption = "params, MACs: kept of the whole model; expected: predicted after fine-tuning"
    return table


def checks_table(verdict: Verdict) -> Table:
    """Every check of the gate with its limit, what was measured, and the answer."""
    table = _table(
        f"Gate: {'passed' if verdict.passed else 'NOT PASSED'}",
        _word("check"),
        _word(""),
        _words("measured"),
        _words("limit"),
        _words("note"),
    )
    for check in verdict.checks:
        measured = text.NOT_MEASURED if check.measured is None else check.measured
        table.add_row(
            _plain(check.name), _answer(check), *map(_plain, (measured, check.limit, check.note))
        )
    if verdict.warnings:
        warnings = "\n".join(f"warning: {shown(words)}" for words in verdict.warnings)
        table.caption = Text(warnings, style="yellow")
    return table


def published(release: Release) -> Text:
    """What was published; in red where a user let a model through that did not pass."""
    said = f"published as {release.name} {release.version}"
    if release.override is None:
        return Text("passed", style="bold green") + _plain(f": {said}")
    why = shown(text.overridden(release.override))
    return Text(f"NOT PASSED, {said} all the same\n{why}", style="bold red")


def not_published(verdict: Verdict) -> Text:
    """Which checks failed."""
    failed = ", ".join(check.name for check in verdict.failed())
    return Text("not passed", style="bold red") + _plain(f": {failed} - nothing was published")


def releases_table(name: str, found: Sequence[CatalogLine]) -> Table:
    """Releases of one name, the latest first."""
    table = _table(
        f"Releases of {name}" if found else "No releases",
        _number("number"),
        _word("version"),
        _word("published"),
        _words("aliases"),
        _number("accuracy"),
        _number("parameters"),
        _word("signed"),
    )
    for listed in reversed(found):
        listing, summary = listed.listing, listed.listing.summary
        _add(
            table,
            str(listed.number),
            listed.version,
            _moment(listing.published),
            ", ".join(listed.aliases) or "-",
            _percents(summary.accuracy_before, summary.accuracy_after),
            f"{summary.params_before:,} > {summary.params_after:,}",
            "yes" if listing.signed_by else "no",
        )
    return table


def release_table(listed: CatalogEntry) -> Group:
    """The files of one release, and what else is known of it."""
    release, summary = listed.release, listed.release.summary
    table = _table(
        f"{release.name} {release.version}", _words("file"), _number("bytes"), _word("sha256")
    )
    for file in release.files:
        _add(table, file.path, f"{file.size:,}", file.sha256[:12])
    facts = {
        "number": str(listed.number),
        "aliases": ", ".join(listed.aliases) or "-",
        "published": _moment(release.lineage.created),
        "accuracy": _percents(summary.accuracy_before, summary.accuracy_after),
        "parameters": f"{summary.params_before:,} > {summary.params_after:,}",
        "MACs": f"{summary.macs_before:,} > {summary.macs_after:,}",
        "weight bytes": f"{summary.weight_bytes_before:,} > {summary.weight_bytes_after:,}",
        "model": release.model_digest,
        "verdict": release.verdict_digest,
        "signed by": release.signed_by or "nobody",
    }
    if release.override:
        facts["override"] = text.overridden(release.override)
    lines = "\n".join(f"{name:<13} {shown(fact)}" for name, fact in facts.items())
    return Group(table, Text(f"\n{lines}"))


def _moment(time: str) -> str:
    return time.replace("T", " ").removesuffix("+00:00")


def _percents(before: float | None, after: float | None) -> str:
    shown = ["-" if value is None else f"{value:.2f}%" for value in (before, after)]
    return " > ".join(shown)


def _predicted(plan: Plan) -> str:
    """Totals of the plan beside parameters, for its caption."""
    found = [
        f"{title} {_total(plan.totals_before[name])} > {_total(plan.totals_after[name])}"
        for name, title in (("latency", "latency of these layers, ms:"), ("bytes", "weight bytes:"))
        if name in plan.totals_after
    ]
    return "".join(f"; {words}" for words in (*found, f"predicted loss: {plan.predicted_loss:.4g}"))


def _total(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _answer(check: Check) -> Text:
    return Text("pass", style="green") if check.passed else Text("FAIL", style="bold red")


def _table(title: str, *columns: Column) -> Table:
    return Table(
        *columns,
        title=Text("\n") + _plain(title),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        # Two blanks between columns in all, so that most tables fit 80.
        padding=(0, 1, 0, 0),
    )


def _words(header: str) -> Column:
    """A column that gives way first where the line is too short."""
    return Column(header, overflow="fold", min_width=10)


def _word(header: str) -> Column:
    return Column(header, no_wrap=True)


def _number(header: str) -> Column:
    return Column(header, justify="right", no_wrap=True)


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(_plain, cells))


def _plain(words: str) -> Text:
    """Text, not str: brackets in the name of a layer are no markup."""
    return Text(shown(words))
