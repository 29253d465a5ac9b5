"""Several plans beside each other: in the terminal and in the report."""

from __future__ import annotations

import io
from pathlib import Path

import rich.console
from reading import Page
from reported import analysis, plan, record, verdict, with_prediction

from lrf_core.artifacts import Cost, Plan, PlanOutcome
from lrf_core.report import plan_rows, unjudged_rows, write_report
from lrf_core.report.tables import plans_table


def numbered(number: int, params: int) -> Plan:
    after = Cost(params=params, macs=450_000)
    chosen = with_prediction(plan(analysis()))
    return chosen.model_copy(update={"number": number, "asked": 2, "after": after})


OUTCOMES = (
    PlanOutcome(numbered(0, 11_728), record(), verdict(passed=True)),
    PlanOutcome(numbered(1, 4_691), record(), verdict(passed=False)),
)


def printed(rows: tuple[object, ...]) -> list[str]:
    stream = io.StringIO()
    rich.console.Console(file=stream, width=80).print(plans_table(rows))  # type: ignore[arg-type]
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_the_table_tells_what_was_predicted_what_came_out_and_what_the_gate_said() -> None:
    lines = printed(plan_rows(OUTCOMES, selected=0))
    assert "0 50.0% 50.0% -0.25 points -0.79 points passed picked" in lines
    assert "1 20.0% 50.0% -0.25 points -1.52 points Accuracy drop" in lines


def test_the_least_bad_is_not_called_picked() -> None:
    rows = plan_rows((OUTCOMES[1], OUTCOMES[1]), selected=1)
    marked = [line.endswith("Accuracy drop shown here") for line in printed(rows)]
    assert marked.count(True) == 1
    assert [row.picked for row in rows] == [False, True]


def test_plans_that_are_not_judged_yet_have_no_answer() -> None:
    assert "0 50.0% 50.0% -0.25 points - -" in printed(unjudged_rows([OUTCOMES[0].plan]))


def test_one_plan_needs_no_table() -> None:
    assert plan_rows(OUTCOMES[:1], selected=0) == ()


def test_the_report_compares_the_plans_it_was_picked_from(tmp_path: Path) -> None:
    def page(plans: tuple[object, ...]) -> str:
        shown = OUTCOMES[0]
        file = write_report(
            tmp_path / "report.html",
            analysis=analysis(),
            plan=shown.plan,
            finetune=shown.finetune,
            verdict=shown.verdict,
            plans=plans,  # type: ignore[arg-type]
        )
        return Page(file.read_text(encoding="utf-8").replace("</t", " </t")).words

    several = " ".join(page(plan_rows(OUTCOMES, selected=0)).split())
    assert "The smallest that passed was picked" in several
    assert "0 50.0% 50.0% \u22120.25 points \u22120.79 points \u2713 passed picked" in several
    assert "1 20.0% 50.0% \u22120.25 points \u22121.52 points \u2717 Accuracy drop" in several
    assert "Each plan was fine-tuned once" not in page(())
