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
    Cost,
    DropCalibration,
    EpochRecord,
    FinetuneRecord,
    LayerRecord,
    Lineage,
    ModelMeasures,
    Plan,
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
    tmp_path: Path, judged: Verdict, finetune: FinetuneRecord | None, layers: int = 6
) -> str:
    inventory = analysis(layers)
    path = write_report(
        tmp_path / "report.html",
        analysis=inventory,
        plan=plan(inventory),
        finetune=finetune,
        verdict=judged,
    )
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("compared", [True, False])
@pytest.mark.parametrize("finetune", [record(), record(epochs=0), None])
def test_the_report_is_one_sound_page_that_needs_nothing_else(
    tmp_path: Path, passed: bool, compared: bool, finetune: FinetuneRecord | None
) -> None:
    source = report(tmp_path, verdict(passed, compared), finetune)
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
    predicted = with_prediction(plan(inventory))
    texts = [
        plain(table, width)
        for table in (
            inventory_table(inventory),
            layers_table(plan(inventory), inventory),
            curve_table(record()),
            before_after_table(judged, predicted),
            checks_table(judged),
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
