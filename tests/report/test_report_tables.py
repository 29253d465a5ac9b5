from __future__ import annotations

import pytest
from reading import plain
from reported import (
    analysis,
    fully_measured,
    lineage,
    override_of,
    plan,
    record,
    verdict,
    with_prediction,
)

from lrf_core.artifacts import (
    Release,
    ReleaseSummary,
)
from lrf_core.report.tables import (
    before_after_table,
    checks_table,
    curve_table,
    inventory_table,
    layers_table,
    published,
)


def test_a_release_that_was_let_through_is_printed_in_red() -> None:
    refused = verdict(False)
    release = Release(
        lineage=lineage(),
        name="net",
        version="v-1",
        location="file:///x",
        model_digest="c" * 64,
        verdict_digest=refused.digest(),
        files=(),
        summary=ReleaseSummary.of(refused),
        override=override_of(refused),
    )
    red = published(release)
    assert "red" in str(red.style)
    assert "NOT PASSED" in red.plain
    assert "overridden by A. Miller: served on a GPU" in red.plain
    passed = published(release.model_copy(update={"override": None}))
    assert passed.plain == "passed: published as net v-1"


def test_warnings_stand_below_the_checks() -> None:
    text = " ".join(plain(checks_table(fully_measured(verdict(True))), 100).split())
    assert "warning: 12 of 10,000 test samples" in text
    assert "warning" not in plain(checks_table(verdict(True)), 100)


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_line_and_keep_every_number_whole(width: int) -> None:
    inventory, judged = analysis(), verdict(False)
    measured = fully_measured(judged).model_copy(update={"metrics": judged.metrics})
    predicted = with_prediction(plan(inventory))
    texts = [
        plain(table, width)
        for table in (
            inventory_table(inventory),
            layers_table(plan(inventory), inventory),
            curve_table(record()),
            before_after_table(judged, predicted),
            checks_table(judged),
            before_after_table(measured, predicted),
            checks_table(measured),
        )
    ]
    assert all(len(line) <= width for text in texts for line in text.splitlines())
    for text, expected in zip(
        texts,
        (
            ("3x3x16x16", "50,001", "and 1 without a kernel (BatchNormalization)"),
            ("8, 10", "1,001", "401", "as it is", "whole model", "12,345", "53%"),
            ("71.00%", "kept"),
            (
                "1.90x smaller",
                "-1.52 points",
                "not measured",
                "-1.82 to -1.22 points",
                "predicted: -0.25 points (-1.00 before fine-tuning, measured -1.20)",
            ),
            ("NOT PASSED", "litert_same_answers", "FAIL", "not measured", "1.52 points"),
            ("3.25%", "-1.50 points", "2.25 ms (p95 2.75)", "same class from both models: 93.18%"),
            ("warning: 12 of",),
        ),
        strict=True,
    ):
        # A caption is folded to the width of its table.
        assert all(words in " ".join(text.split()) for words in expected)


def test_names_cannot_steer_the_terminal() -> None:
    inventory = analysis()
    first = inventory.layers[0].model_copy(update={"name": "[red]x[/red]\x1b[2J"})
    changed = inventory.model_copy(update={"layers": (first, *inventory.layers[1:])})
    text = plain(inventory_table(changed), 100)
    assert "[red]x[/red]\\x1b[2J" in text
    assert "\x1b" not in text
