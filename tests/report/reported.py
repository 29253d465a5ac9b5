"""A made-up run of a small network, with names that would break a careless report."""

from __future__ import annotations

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
    TriedPlan,
    Verdict,
)

EVIL = '<script>alert("x")</script>'


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
