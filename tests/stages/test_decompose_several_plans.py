"""Which of several plans is picked, and what belongs to which."""

from __future__ import annotations

import keras
import pytest

from lrf_core.artifacts import Check, Cost, FinetuneRecord, Lineage, ModelMeasures, Plan, Verdict
from lrf_core.errors import ArtifactError
from lrf_core.models.load import model_digest
from lrf_core.stages import by_number, select_candidate, smallest_passing

LINEAGE = Lineage(inputs={}, settings={})


def verdict(params: int, *, failed: int = 0, drop: float | None = 0.5, macs: int = 1000) -> Verdict:
    def measures(size: int) -> ModelMeasures:
        return ModelMeasures(
            cost=Cost(params=size, macs=macs), weight_bytes=4 * size, accuracy=90.0, samples=100
        )

    checks = [
        Check(name=f"check{i}", limit="0", measured="0", passed=i >= failed) for i in range(4)
    ]
    return Verdict(
        lineage=LINEAGE,
        passed=failed == 0,
        baseline_digest="b" * 64,
        candidate_digest="c" * 64,
        checks=tuple(checks),
        baseline=measures(1000),
        candidate=measures(params),
        accuracy_drop=drop,
    )


def test_the_smallest_that_passes_is_picked_though_a_smaller_one_fails() -> None:
    verdicts = [verdict(500), verdict(700), verdict(300, failed=1)]
    assert smallest_passing(verdicts) == select_candidate(verdicts) == 0


def test_of_equal_parameters_fewer_multiply_adds_are_smaller() -> None:
    assert select_candidate([verdict(500, macs=900), verdict(500, macs=800)]) == 1


def test_where_none_passes_the_fewest_failed_checks_then_the_least_drop_are_shown() -> None:
    verdicts = [
        verdict(300, failed=2, drop=0.1),
        verdict(500, failed=1, drop=None),
        verdict(500, failed=1, drop=3.0),
        verdict(700, failed=1, drop=2.0),
    ]
    assert smallest_passing(verdicts) is None
    assert [select_candidate(verdicts[:count]) for count in (1, 2, 3, 4)] == [0, 1, 2, 3]


def network(units: int) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(units)(inputs))


def plan(number: int) -> Plan:
    cost = Cost(params=10, macs=10)
    return Plan(
        lineage=LINEAGE,
        policy="knapsack",
        model_digest="m" * 64,
        factorized_digest=f"{number}" * 64,
        choices=(),
        before=cost,
        after=cost,
        predicted_loss=0.0,
        number=number,
        asked=3,
    )


def training(number: int, after: keras.Model) -> FinetuneRecord:
    return FinetuneRecord(
        lineage=LINEAGE,
        before_digest=f"{number}" * 64,
        after_digest=model_digest(after),
        samples=1,
        steps=1,
        seconds=1.0,
        best_epoch=1,
        curve=(),
    )


def test_what_belongs_together_is_found_in_whatever_order_it_comes() -> None:
    models = [network(units) for units in (1, 2, 3)]
    plans = [plan(number) for number in range(3)]
    records = [training(number, model) for number, model in enumerate(models)]
    found = by_number(
        [plans[2], plans[0], plans[1]],
        [records[1], records[2], records[0]],
        [models[0], models[2], models[1]],
    )
    assert found == list(zip(plans, records, models, strict=True))


def test_what_does_not_belong_together_is_refused() -> None:
    models = [network(units) for units in (1, 2)]
    records = [training(number, model) for number, model in enumerate(models)]
    with pytest.raises(ArtifactError, match="no training or candidate of model 222222"):
        by_number([plan(0), plan(2)], records, models)
    with pytest.raises(ArtifactError, match="no training or candidate"):
        by_number([plan(0), plan(1)], records, [models[0], network(5)])
    with pytest.raises(ArtifactError, match="1 plans, 2 trainings and 2 candidates"):
        by_number([plan(0)], records, models)
