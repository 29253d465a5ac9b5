from __future__ import annotations

from pathlib import Path

import pytest
from reading import Page, plain
from reported import (
    EVIL,
    analysis,
    fully_measured,
    override_of,
    plan,
    record,
    verdict,
    with_prediction,
)

from lrf_core.artifacts import (
    EpochRecord,
    FinetuneRecord,
    Override,
    Verdict,
)
from lrf_core.errors import ArtifactError
from lrf_core.report import write_report
from lrf_core.report.chart import learning_curve
from lrf_core.report.tables import (
    before_after_table,
)


def report(
    tmp_path: Path,
    judged: Verdict,
    finetune: FinetuneRecord | None,
    layers: int = 6,
    override: Override | None = None,
) -> str:
    inventory = analysis(layers)
    path = write_report(
        tmp_path / "report.html",
        analysis=inventory,
        plan=plan(inventory),
        finetune=finetune,
        verdict=judged,
        override=override,
    )
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("compared", [True, False])
@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("finetune", [record(), record(epochs=0), None])
def test_the_report_is_one_sound_page_that_needs_nothing_else(
    tmp_path: Path, passed: bool, compared: bool, measured: bool, finetune: FinetuneRecord | None
) -> None:
    judged = verdict(passed, compared)
    judged = fully_measured(judged) if measured and compared else judged
    override = None if passed else override_of(judged)
    source = report(tmp_path, judged, finetune, override=override)
    assert EVIL not in source
    page = Page(source)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href", "onclick"} & {name for name, _ in page.attributes}
    assert "http" not in source
    assert "url(" not in source
    assert "@import" not in source
    assert ("svg" in page.tags) == (finetune is not None and len(finetune.curve) > 1)


def test_names_from_models_are_shown_not_run(tmp_path: Path) -> None:
    source = report(tmp_path, verdict(False), record())
    assert EVIL not in source
    assert Page(source).words.count(EVIL) >= 3


def test_the_numbers_are_there(tmp_path: Path) -> None:
    words = Page(report(tmp_path, verdict(True), record())).words
    for number in (
        "87.99%",
        "87.20%",
        "\N{MINUS SIGN}0.79 points",
        "23,456",
        "12,345",
        "1.90\N{MULTIPLICATION SIGN} smaller",
        "2.25 ms",
        "93.18%",
        "\N{LESS-THAN OR EQUAL TO} 1.00 points",
        "8, 10",
        "4,500 samples",
        "a" * 64,
        "c" * 64,
        "knapsack",
    ):
        assert number in words


def test_the_verdict_is_said_in_words_with_the_reason(tmp_path: Path) -> None:
    passed = Page(report(tmp_path, verdict(True), None)).words
    assert "Passed the gate" in passed
    assert "was not fine-tuned" in passed
    refused = Page(report(tmp_path, verdict(False), None)).words
    assert "Did not pass the gate" in refused
    assert "Passed the gate" not in refused
    assert "2 of 2 checks failed" in refused
    assert "not measured" in refused
    assert "LiteRT same answers" in refused


def test_all_that_was_compared_is_there(tmp_path: Path) -> None:
    words = " ".join(Page(report(tmp_path, fully_measured(verdict(True)), record())).words.split())
    for said in (
        "95% interval of the change of accuracy: \u22121.27 to \u22120.31 points (Tango score)",
        "only the original is right on 312 samples, only the candidate on 233: McNemar p = 0.00083",
        ": +0.0333 to +0.0555 (studentized bootstrap)",
        "Calibration error3.25%1.75%\u22121.50 points",
        "The 10 of 12 classes with the largest drop",
        "class 910990.00%105.00% +15.00+5.00 to +25.00",
        "class 110190.00%65.00% \u221225.00\u221235.00 to \u221215.00",
        "2.75)",
        "12 of 10,000 test samples (0.1%) are among the training samples",
        "93.18% of the samples",
    ):
        assert said in words
    assert "class 10" not in words
    assert "0.4123" in words
    assert "+0.0444" in words


def test_an_override_is_said_loudly_and_changes_no_answer(tmp_path: Path) -> None:
    refused = verdict(False)
    plain_words = Page(report(tmp_path, refused, None)).words
    words = Page(report(tmp_path, refused, None, override=override_of(refused))).words
    assert "Overridden by A. Miller" in words
    assert f"served on a GPU {EVIL}" in words
    assert "accuracy_drop, litert_same_answers failed" in words
    assert "Did not pass the gate" in words
    assert "2 of 2 checks failed" in words
    assert "must not be published" not in words
    assert "must not be published" in plain_words
    assert "Overridden" not in plain_words


def test_every_layer_has_its_row(tmp_path: Path) -> None:
    words = Page(report(tmp_path, verdict(True), record(), layers=60)).words
    assert all(f"conv{i}" in words for i in range(59))
    assert "59 of 60 explored layers were replaced" in words
    assert "left as they are: 1" in words
    assert "has no kernel" in words


def test_the_same_artifacts_give_the_same_file(tmp_path: Path) -> None:
    judged, trained, inventory = verdict(True), record(), analysis()
    chosen = plan(inventory)
    first, second = (
        write_report(
            tmp_path / name, analysis=inventory, plan=chosen, finetune=trained, verdict=judged
        ).read_bytes()
        for name in ("a.html", "b.html")
    )
    assert first == second


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        report(tmp_path / "file", verdict(True), None)


@pytest.mark.parametrize("values", [[50.0, 50.0], [0.0, 0.0], [99.9, 100.0], [10.0, 90.0, 12.5]])
def test_the_curve_lies_within_its_axes(values: list[float]) -> None:
    curve = tuple(
        EpochRecord(epoch=i, loss=value, validation_loss=value, validation_accuracy=value)
        for i, value in enumerate(values)
    )
    for chart in learning_curve(record().model_copy(update={"curve": curve, "best_epoch": 0})):
        heights = [tick.at for tick in chart.y_ticks]
        assert heights == sorted(heights, reverse=True)
        assert 2 <= len(heights) <= 8
        assert len({tick.label for tick in chart.y_ticks}) == len(heights)
        for line in chart.lines:
            for dot in line.dots:
                assert chart.left <= dot.x <= chart.right
                assert chart.top <= dot.y <= chart.bottom


@pytest.mark.parametrize("compared", [True, False])
def test_the_prediction_stands_beside_what_came_out(tmp_path: Path, compared: bool) -> None:
    inventory, judged = analysis(), verdict(True, compared)
    came_out = "\u22120.79 points" if compared else "not measured"
    line = (
        "Accuracy predicted: \u22120.25 points (\u22121.00 before fine-tuning, measured "
        f"\u22121.20); came out: {came_out}."
    )
    pages = [
        write_report(
            tmp_path / "report.html",
            analysis=inventory,
            plan=chosen,
            finetune=record(),
            verdict=judged,
        ).read_text(encoding="utf-8")
        for chosen in (plan(inventory), with_prediction(plan(inventory)))
    ]
    assert "came out" not in pages[0]
    assert line in Page(pages[1]).words
    assert ("came out" in plain(before_after_table(judged, plan(inventory)), 100)) is False
