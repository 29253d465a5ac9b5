from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
import rich.console
from rich.table import Table

from lrf_core.artifacts import (
    Analysis,
    Call,
    Candidate,
    Check,
    Choice,
    ClassChange,
    Cost,
    DropCalibration,
    EpochRecord,
    FinetuneRecord,
    LayerRecord,
    Lineage,
    MetricChange,
    ModelMeasures,
    Override,
    Plan,
    Release,
    ReleaseSummary,
    TriedPlan,
    Verdict,
)
from lrf_core.errors import ArtifactError
from lrf_core.report import write_report
from lrf_core.report.chart import learning_curve
from lrf_core.report.tables import (
    before_after_table,
    checks_table,
    curve_table,
    inventory_table,
    layers_table,
    published,
)

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "br", "hr", "img", "input", "link"}


def lineage() -> Lineage:
    return Lineage(inputs={"data": "d" * 64}, settings={"gate": {"note": EVIL}, "seed": 0})


def layer(name: str, i: int) -> LayerRecord:
    cost = Cost(params=1000 + i, macs=50_000 + i)
    shape = (3, 3, 16, 16)
    return LayerRecord(
        name=name,
        kind="Conv2D",
        kernel_shape=shape,
        calls=(Call(inputs=(8, 8), outputs=(8, 8)),),
        cost=cost,
        share=0.01,
        methods=("tucker",),
    )


def analysis(count: int = 6) -> Analysis:
    names = [f"conv{i}" for i in range(count - 1)] + [EVIL]
    norm = LayerRecord(
        name="norm",
        kind="BatchNormalization",
        kernel_shape=(),
        calls=(),
        cost=Cost(params=64, macs=0),
        share=0.001,
        reason="has no kernel",
    )
    return Analysis(
        lineage=lineage(),
        model_name=f"net {EVIL}",
        model_digest="a" * 64,
        input_shape=(None, 8, 8, 3),
        output_shape=(None, 4),
        layers=(*(layer(name, i) for i, name in enumerate(names)), norm),
        baseline=measures(23456, 87.99),
        shards=(tuple(names),),
    )


def plan(inventory: Analysis) -> Plan:
    choices = []
    for i, record in enumerate(inventory.eligible()):
        candidate = Candidate(
            layer=record.name,
            method="tucker",
            ranks=(8, 9 + i),
            cost=Cost(params=400 + i, macs=20_000),
            error=0.01,
            similarity=0.99,
            sensitivity=0.001,
        )
        choices.append(
            Choice(layer=record.name, before=record.cost, candidate=candidate if i else None)
        )
    return Plan(
        lineage=lineage(),
        policy="knapsack",
        model_digest="a" * 64,
        factorized_digest="f" * 64,
        choices=tuple(choices),
        before=Cost(params=23456, macs=900_000),
        after=Cost(params=12345, macs=500_000),
        predicted_loss=0.1,
    )


def with_prediction(chosen: Plan) -> Plan:
    points = (TriedPlan(loss=0.1, drop=1.1, standard_error=0.2),)
    calibration = DropCalibration(
        loss="error",
        points=points,
        samples=500,
        measured_drop=1.2,
        standard_error=0.2,
        expected_drop=0.25,
    )
    return chosen.model_copy(update={"predicted_drop": 1.0, "calibration": calibration})


def record(epochs: int = 3) -> FinetuneRecord:
    curve = [
        EpochRecord(
            epoch=epoch,
            loss=1.0 / (epoch + 1),
            validation_loss=1.1 / (epoch + 1),
            validation_accuracy=70.0 + epoch,
        )
        for epoch in range(epochs + 1)
    ]
    return FinetuneRecord(
        lineage=lineage(),
        before_digest="f" * 64,
        after_digest="c" * 64,
        samples=4500,
        steps=321,
        seconds=12.0,
        best_epoch=epochs,
        curve=tuple(curve),
    )


def measures(params: int, accuracy: float | None, litert_ms: float | None = 1.5) -> ModelMeasures:
    return ModelMeasures(
        cost=Cost(params=params, macs=40 * params),
        weight_bytes=4 * params,
        accuracy=accuracy,
        samples=10_000,
        keras_latency_ms=2.25,
        litert_latency_ms=litert_ms,
    )


def verdict(passed: bool, compared: bool = True) -> Verdict:
    drop = (0.79 if passed else 1.52) if compared else None
    checks = (
        Check(
            name="accuracy_drop",
            limit="<= 1.00 points",
            measured=None if drop is None else f"{drop:.2f} points",
            passed=passed,
        ),
        Check(
            name="litert_same_answers",
            limit="<= 0.001 apart",
            measured="1e-07 apart" if passed else None,
            passed=passed,
            note="" if passed else f"LiteRT cannot express {EVIL}",
        ),
    )
    after = measures(12345, None if drop is None else 87.99 - drop, 1.25 if passed else None)
    return Verdict(
        lineage=lineage(),
        passed=passed,
        baseline_digest="a" * 64,
        candidate_digest="c" * 64,
        checks=checks,
        baseline=measures(23456, 87.99),
        candidate=after,
        accuracy_drop=drop,
        drop_interval=None if drop is None else (drop - 0.3, drop + 0.3),
        agreement=None if drop is None else 93.18,
    )


def fully_measured(judged: Verdict) -> Verdict:
    """With everything that a comparison gives, and warnings."""
    accuracy = MetricChange(
        name="accuracy",
        unit="points",
        higher_is_better=True,
        before=87.99,
        after=87.20,
        drop=0.79,
        interval=(0.31, 1.27),
        method="Tango score",
        bootstrap_interval=(0.3, 1.3),
        lost=312,
        won=233,
        mcnemar_p=0.00083,
    )
    loss = accuracy.model_copy(
        update={
            "name": f"my:loss {EVIL}",
            "unit": "",
            "higher_is_better": False,
            "before": 0.41234,
            "after": 0.45678,
            "drop": 0.04444,
            "interval": (0.0333, 0.0555),
            "method": "studentized bootstrap",
            "mcnemar_p": None,
        }
    )
    classes = [
        ClassChange(
            label=f"class {i} {EVIL}" if i == 0 else f"class {i}",
            samples=100 + i,
            before=90.0,
            after=60.0 + 5 * i,
            drop=30.0 - 5 * i,
            interval=(20.0 - 5 * i, 40.0 - 5 * i),
        )
        for i in range(12)
    ]
    return judged.model_copy(
        update={
            "metrics": (accuracy, loss),
            "classes": tuple(classes),
            "calibration_error": (3.25, 1.75),
            "warnings": ("12 of 10,000 test samples (0.1%) are among the training samples",),
            "candidate": judged.candidate.model_copy(update={"keras_latency_p95_ms": 2.75}),
        }
    )


def override_of(judged: Verdict) -> Override:
    return Override(
        lineage=lineage(),
        by="A. Miller",
        reason=f"served on a GPU {EVIL}",
        checks=tuple(check for check in judged.checks if not check.passed),
        candidate_digest=judged.candidate_digest,
        verdict_digest=judged.digest(),
    )


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed, in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


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


def plain(table: Table, width: int) -> str:
    output = io.StringIO()
    rich.console.Console(file=output, width=width).print(table)
    return output.getvalue()


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
    assert "[red]x[/red]?[2J" in text
    assert "\x1b" not in text
