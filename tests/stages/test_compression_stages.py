"""analyze, explore and decompose on a trained model: what is promised is what is built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import Trained, tiny_cnn, tiny_data, train_tiny

import lrf_core as lrf
from lrf_core import methods, stages
from lrf_core.artifacts import DesignSpace
from lrf_core.data import Split
from lrf_core.errors import ArtifactError, DataError, GoalError, SpecError
from lrf_core.exploration.merge import in_order
from lrf_core.exploration.predict import TRIED_PLANS, fit_curve
from lrf_core.measurement.measure import accuracy, predict
from lrf_core.models.cost import model_cost
from lrf_core.models.inventory import take_inventory
from lrf_core.models.load import model_digest, weight_bytes
from lrf_core.stages.trial import AccuracyProbe, trial_samples

CEILINGS = {"params": "max_params", "macs": "max_macs", "bytes": "max_weight_bytes"}
SETTINGS = lrf.ExploreSpec(samples=128, ranks_per_mode=8, shards=2)


@pytest.fixture(scope="module")
def analysis(trained: Trained) -> lrf.Analysis:
    return lrf.analyze(trained.model, trained.data, settings=SETTINGS)


@pytest.fixture(scope="module")
def space(trained: Trained, analysis: lrf.Analysis) -> DesignSpace:
    return lrf.explore(trained.model, trained.data, analysis, settings=SETTINGS)


def test_analysis_counts_the_model(trained: Trained, analysis: lrf.Analysis) -> None:
    assert analysis.baseline.cost == model_cost(trained.model)
    assert analysis.baseline.accuracy == accuracy(trained.model, trained.data.test)
    assert sum(layer.cost.macs for layer in analysis.layers) == analysis.baseline.cost.macs
    explored = [name for shard in analysis.shards for name in shard]
    assert sorted(explored) == sorted(layer.name for layer in analysis.eligible())


def test_layers_can_be_left_alone(trained: Trained) -> None:
    chosen = SETTINGS.model_copy(update={"layers": ("conv*",), "exclude": ("conv0*",)})
    found = lrf.analyze(trained.model, trained.data, settings=chosen)
    assert {layer.name for layer in found.eligible()} == {"conv1", "conv1b"}
    left = next(layer for layer in found.layers if layer.name == "hidden")
    assert "as the spec asks" in left.reason


def test_shards_together_are_the_whole(
    trained: Trained, analysis: lrf.Analysis, space: DesignSpace
) -> None:
    shards = [
        lrf.explore(
            trained.model, trained.data, analysis, settings=SETTINGS, shard=lrf.Shard(number, 2)
        )
        for number in (1, 2)
    ]
    assert tuple(shard.layers for shard in shards) == analysis.shards
    parts = [candidate for shard in shards for candidate in shard.candidates]
    assert in_order(parts, space.layers) == space.candidates
    goal = lrf.Goal(params_reduction=0.4)
    whole, _ = lrf.decompose(trained.model, trained.data, [space], goal)
    joined, _ = lrf.decompose(trained.model, trained.data, shards, goal)
    assert joined.replaced() == whole.replaced()


def test_candidates_are_smaller_than_their_layer(
    analysis: lrf.Analysis, space: DesignSpace
) -> None:
    before = {layer.name: layer.cost.params for layer in analysis.layers}
    assert all(c.cost.params < before[c.layer] for c in space.candidates)
    assert all(c.error >= 0 and c.sensitivity >= 0 for c in space.candidates)
    assert {c.method for c in space.candidates} == set(methods.names())


@pytest.mark.parametrize("policy", ["knapsack", "threshold"])
def test_a_plan_keeps_its_promise(trained: Trained, space: DesignSpace, policy: str) -> None:
    plan, model = lrf.decompose(
        trained.model,
        trained.data,
        [space],
        lrf.Goal(params_reduction=0.4),
        settings=lrf.DecomposeSpec(policy=policy),
    )
    assert model_cost(model) == plan.after
    assert model.count_params() <= 0.6 * trained.model.count_params()
    assert plan.factorized_digest == model_digest(model)
    assert plan.predicted_loss == pytest.approx(sum(c.sensitivity for c in plan.replaced()))


def test_knapsack_predicts_less_loss_than_a_threshold_of_the_same_size(
    trained: Trained, space: DesignSpace
) -> None:
    plans = [
        lrf.decompose(
            trained.model,
            trained.data,
            [space],
            lrf.Goal(params_reduction=0.4),
            settings=lrf.DecomposeSpec(policy=policy),
        )[0]
        for policy in ("knapsack", "threshold")
    ]
    assert plans[0].predicted_loss <= plans[1].predicted_loss


def test_macs_and_params_goals_hold_together(trained: Trained, space: DesignSpace) -> None:
    goal = lrf.Goal(params_reduction=0.3, macs_reduction=0.3)
    _, model = lrf.decompose(trained.model, trained.data, [space], goal)
    before, after = model_cost(trained.model), model_cost(model)
    assert after.params <= 0.7 * before.params
    assert after.macs <= 0.7 * before.macs


def test_similarity_goal_holds_for_every_layer(trained: Trained, space: DesignSpace) -> None:
    plan, _ = lrf.decompose(trained.model, trained.data, [space], lrf.Goal(similarity=0.9))
    assert plan.replaced()
    assert all(candidate.similarity >= 0.9 for candidate in plan.replaced())


@pytest.fixture(scope="module")
def unsure() -> tuple[Trained, DesignSpace]:
    """A model that errs, so that its accuracy falls step by step, with its design space."""
    data = tiny_data(train=2048, noise=130.0)
    model = train_tiny(tiny_cnn(), data, epochs=2)
    found = SETTINGS.model_copy(update={"methods": ("tucker", "svd")})
    analysis = lrf.analyze(model, data, settings=found)
    space = lrf.explore(model, data, analysis, settings=found)
    return Trained(model, data, Path(), Path()), space


@pytest.mark.parametrize("policy", ["knapsack", "threshold"])
@pytest.mark.parametrize("minimize", ["sensitivity", "error", "macs"])
def test_accuracy_goal_is_met_by_a_curve_calibrated_on_training_samples(
    unsure: tuple[Trained, DesignSpace], policy: str, minimize: str
) -> None:
    trained, space = unsure
    settings = lrf.DecomposeSpec(
        policy=policy, minimize=minimize, expected_recovery=0.5, refit=False
    )
    goal = lrf.Goal(max_accuracy_drop=2.0)
    plan, model = lrf.decompose(trained.model, trained.data, [space], goal, settings=settings)
    found = plan.calibration
    assert found is not None
    assert plan.predicted_drop is not None
    assert len(found.points) <= TRIED_PLANS
    assert found.loss == ("error" if minimize == "error" else "sensitivity")
    assert (found.samples, found.labelled) == (2048 - 128, True)
    assert found.expected_drop == pytest.approx(plan.predicted_drop / 2)
    assert 0 < plan.after.params < plan.before.params
    loss = plan.totals_after[found.loss]
    (own,) = [p for p in found.points if p.loss == pytest.approx(loss, rel=1e-9, abs=0)]
    assert own.drop <= 4.0 + own.standard_error
    assert own.drop == pytest.approx(plan.predicted_drop, abs=4 * own.standard_error)
    # Nothing is refitted, so that the model that was built is the plan that was measured.
    assert found.measured_drop == pytest.approx(own.drop)
    drop = accuracy(trained.model, trained.data.train) - accuracy(model, trained.data.train)
    assert drop == pytest.approx(found.measured_drop, abs=3 * found.standard_error)


def test_a_smaller_plan_is_predicted_to_lose_too_much(
    unsure: tuple[Trained, DesignSpace],
) -> None:
    trained, space = unsure
    settings = lrf.DecomposeSpec(minimize="error", expected_recovery=0.0, refit=False)

    def plan_for(goal: lrf.Goal) -> lrf.Plan:
        return lrf.decompose(trained.model, trained.data, [space], goal, settings=settings)[0]

    plan = plan_for(lrf.Goal(max_accuracy_drop=4.0))
    assert plan.calibration is not None
    smaller = plan_for(lrf.Goal(max_params=plan.after.params - 1))
    # The plan was measured last; what was measured before decided on it.
    loss = plan.totals_after["error"]
    assert plan.calibration.points[-1].loss == pytest.approx(loss)
    curve = fit_curve(plan.calibration.points[:-1])
    assert plan.predicted_drop == pytest.approx(curve.at(loss))
    assert plan.predicted_drop <= 4.0 < curve.at(smaller.totals_after["error"])


@pytest.mark.slow
def test_a_plan_is_the_same_whichever_others_are_built(
    unsure: tuple[Trained, DesignSpace],
) -> None:
    trained, space = unsure
    goal = lrf.Goal(max_accuracy_drop=1.0)
    settings = lrf.DecomposeSpec(plans=3, minimize="error")
    everything = (trained.model, trained.data, [space], goal)
    prepared = stages.prepare(*everything, settings=settings)
    together = [prepared.build(number)[0] for number in range(3)]
    apart, model = lrf.decompose(*everything, settings=settings, plan=2)
    assert apart.digest() == together[2].digest()
    assert apart.factorized_digest == model_digest(model)
    assert [(plan.number, plan.asked) for plan in together] == [(0, 3), (1, 3), (2, 3)]
    assert [plan.lineage.settings["plan"] for plan in together] == [0, 1, 2]
    assert len({plan.factorized_digest for plan in together}) == 3
    alone, _ = lrf.decompose(*everything, settings=settings.model_copy(update={"plans": 1}))
    assert alone.factorized_digest == together[0].factorized_digest
    with pytest.raises(GoalError, match="there is no plan 3; 3 were found"):
        prepared.build(3)


def test_plans_are_counted_without_the_model(
    trained: Trained, analysis: lrf.Analysis, space: DesignSpace
) -> None:
    goal = lrf.Goal(params_reduction=0.3)
    settings = lrf.DecomposeSpec(plans=3, refit=False)
    assert lrf.plan_numbers(space, analysis, goal, settings=settings) == [0, 1, 2]
    assert lrf.plan_numbers(space, analysis, goal) == [0]
    sizes = [
        lrf.decompose(trained.model, trained.data, [space], goal, settings=settings, plan=number)[
            0
        ].after.params
        for number in (0, 1, 2)
    ]
    assert sizes == sorted(set(sizes), reverse=True)
    of_another = analysis.model_copy(update={"model_digest": "0" * 64})
    with pytest.raises(ArtifactError, match="analyze and explore one model"):
        lrf.plan_numbers(space, of_another, goal)


def test_fewer_plans_than_asked_for_are_said(
    analysis: lrf.Analysis, space: DesignSpace, caplog: pytest.LogCaptureFixture
) -> None:
    two = [c for c in space.candidates if c.layer == "hidden"][:2]
    small = space.model_copy(update={"candidates": tuple(two)})
    settings = lrf.DecomposeSpec(plans=5)
    numbers = lrf.plan_numbers(small, analysis, lrf.Goal(max_accuracy_drop=1.0), settings=settings)
    assert len(numbers) <= 2
    assert f"5 plans are asked for; there are {len(numbers)} that differ enough" in caplog.text


def test_without_labels_the_original_stands_for_them(trained: Trained, space: DesignSpace) -> None:
    train = trained.data.train
    data = dataclasses.replace(trained.data, train=Split(train.count, None, train.read))
    settings = lrf.DecomposeSpec(expected_recovery=0.0, refit=False)
    goal = lrf.Goal(max_accuracy_drop=3.0)
    plan, model = lrf.decompose(trained.model, data, [space], goal, settings=settings)
    assert plan.calibration is not None
    assert not plan.calibration.labelled
    before, after = (predict(each, train).argmax(axis=-1) for each in (trained.model, model))
    changed = 100 * float(np.mean(before != after))
    noise = plan.calibration.standard_error
    assert plan.calibration.measured_drop == pytest.approx(changed, abs=3 * noise)
    assert plan.calibration.measured_drop <= 3.0


def test_the_drop_is_never_measured_on_test_samples(trained: Trained, space: DesignSpace) -> None:
    def refuse(indices: np.ndarray) -> np.ndarray:
        raise AssertionError("test samples were read")

    test = Split(trained.data.test.count, trained.data.test.labels, refuse)
    data = dataclasses.replace(trained.data, test=test)
    settings = lrf.DecomposeSpec(refit=False)
    plan, _ = lrf.decompose(
        trained.model, data, [space], lrf.Goal(max_accuracy_drop=1.0), settings=settings
    )
    assert plan.calibration is not None


def test_a_drop_needs_a_model_with_classes() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs), name="size")
    trial = AccuracyProbe(model, Split.of(np.zeros((8, 4), np.float32)))
    with pytest.raises(GoalError, match="model 'size' answers"):
        trial.drop(model)


def test_plans_are_tried_on_samples_that_factors_were_not_fitted_to() -> None:
    train = Split.of(np.arange(1000), np.zeros(1000)).take(np.arange(999, 99, -1))
    calibration = train.sample(300, 0)
    fresh = trial_samples(train, calibration, 1)
    assert fresh.count == 600
    assert not set(fresh.arrays()[0]) & set(calibration.arrays()[0])
    assert trial_samples(train, train, 1) is train
    few = train.sample(880, 0)
    assert trial_samples(train, few, 1) is few


def test_limits_of_every_kind_hold_in_the_rebuilt_model(
    trained: Trained, space: DesignSpace
) -> None:
    before = weight_bytes(trained.model)
    goal = lrf.Goal(bytes_reduction=0.3, max_macs=int(0.6 * model_cost(trained.model).macs))
    plan, model = lrf.decompose(trained.model, trained.data, [space], goal)
    assert plan.totals_before["bytes"] == before
    assert plan.totals_after["bytes"] == weight_bytes(model) <= plan.limits["bytes"] <= 0.7 * before
    assert plan.totals_after["macs"] == model_cost(model).macs <= plan.limits["macs"]
    assert plan.totals_after["sensitivity"] == pytest.approx(plan.predicted_loss)
    assert plan.minimized == "sensitivity"
    assert "latency" not in plan.totals_after


@pytest.mark.parametrize("cost", ["params", "macs", "bytes"])
def test_a_cost_is_minimised_within_a_loss(unsure: tuple[Trained, DesignSpace], cost: str) -> None:
    trained, space = unsure
    goal = lrf.Goal(max_predicted_loss=0.05)
    settings = lrf.DecomposeSpec(minimize=cost, refit=False)
    plan, _ = lrf.decompose(trained.model, trained.data, [space], goal, settings=settings)
    assert 0 < plan.predicted_loss <= 0.05
    within_cost = lrf.Goal(max_predicted_loss=0.05, **{CEILINGS[cost]: plan.totals_after[cost] - 1})
    with pytest.raises(GoalError, match="no plan meets"):
        lrf.decompose(trained.model, trained.data, [space], within_cost, settings=settings)


def test_minimising_a_cost_needs_a_limit_on_the_loss(trained: Trained, space: DesignSpace) -> None:
    settings = lrf.DecomposeSpec(minimize="macs")
    with pytest.raises(GoalError, match="needs a limit on the loss"):
        lrf.decompose(
            trained.model, trained.data, [space], lrf.Goal(max_params=2000), settings=settings
        )


def test_latencies_of_the_design_space_can_be_limited(trained: Trained, space: DesignSpace) -> None:
    goal = lrf.Goal(latency_reduction=0.25, params_reduction=0.1)
    with pytest.raises(GoalError, match="`lrf profile`"):
        lrf.decompose(trained.model, trained.data, [space], goal)
    # Latencies of one part per parameter, so that what must come out is known.
    whole = {layer.name: layer for layer in take_inventory(trained.model, methods.names())}
    timed = space.model_copy(
        update={
            "latency_ms": {name: whole[name].cost.params / 1000 for name in space.layers},
            "candidates": tuple(
                c.model_copy(update={"latency_ms": c.cost.params / 1000}) for c in space.candidates
            ),
        }
    )
    plan, _ = lrf.decompose(trained.model, trained.data, [timed], goal)
    before = sum(choice.before.params for choice in plan.choices) / 1000
    assert plan.totals_before["latency"] == pytest.approx(before)
    assert plan.limits["latency"] == pytest.approx(0.75 * before)
    assert plan.totals_after["latency"] <= 0.75 * before + 1e-9


def test_vbmf_ranks_are_offered_ones_and_whatever_the_goal(
    trained: Trained, space: DesignSpace
) -> None:
    settings = lrf.DecomposeSpec(policy="vbmf", refit=False)
    goal = lrf.Goal(max_accuracy_drop=1.0)
    plan, model = lrf.decompose(trained.model, trained.data, [space], goal, settings=settings)
    assert set(plan.replaced()) <= set(space.candidates)
    assert {candidate.method for candidate in plan.replaced()} <= {"tucker", "svd"}
    assert model_cost(model) == plan.after
    assert (plan.policy, plan.minimized) == ("vbmf", "")
    with pytest.raises(GoalError, match="policy vbmf chooses ranks whatever the goal"):
        lrf.decompose(
            trained.model, trained.data, [space], lrf.Goal(params_reduction=0.9), settings=settings
        )


@pytest.mark.parametrize("minimize", [None, "macs"])
def test_an_accuracy_goal_combines_with_limits(
    trained: Trained, space: DesignSpace, minimize: str | None
) -> None:
    goal = lrf.Goal(max_accuracy_drop=4.0, max_predicted_loss=0.2, similarity=0.5)
    settings = lrf.DecomposeSpec(minimize=minimize, expected_recovery=0.0, refit=False)
    plan, _ = lrf.decompose(trained.model, trained.data, [space], goal, settings=settings)
    assert plan.calibration is not None
    assert plan.calibration.measured_drop <= 4.0
    assert 0 < plan.predicted_loss <= 0.2
    assert all(candidate.similarity >= 0.5 for candidate in plan.replaced())


def test_goal_out_of_reach(trained: Trained, space: DesignSpace) -> None:
    with pytest.raises(GoalError, match=r"params_reduction 0.990 cannot be reached"):
        lrf.decompose(trained.model, trained.data, [space], lrf.Goal(params_reduction=0.99))
    with pytest.raises(GoalError, match="no layer has a candidate"):
        lrf.decompose(trained.model, trained.data, [space], lrf.Goal(similarity=1.0))


def test_artifacts_of_another_model_or_other_data_are_refused(
    trained: Trained, analysis: lrf.Analysis, space: DesignSpace
) -> None:
    other = tiny_cnn(seed=5)
    with pytest.raises(ArtifactError, match="analysis is of model"):
        lrf.explore(other, trained.data, analysis, settings=SETTINGS)
    goal = lrf.Goal(params_reduction=0.4)
    with pytest.raises(ArtifactError, match="design space is of model"):
        lrf.decompose(other, trained.data, [space], goal)
    with pytest.raises(ArtifactError, match="other calibration samples"):
        lrf.decompose(trained.model, trained.data, [space], goal, seed=1)
    with pytest.raises(ArtifactError, match="more than one design space"):
        lrf.decompose(trained.model, trained.data, [space, space], goal)
    with pytest.raises(ArtifactError, match="no design space"):
        lrf.decompose(trained.model, trained.data, [], goal)


def test_too_few_samples_and_no_such_shard(trained: Trained, analysis: lrf.Analysis) -> None:
    many = SETTINGS.model_copy(update={"samples": 10**6})
    with pytest.raises(DataError, match=r"512 training samples, explore.samples asks for 1000000"):
        lrf.explore(trained.model, trained.data, analysis, settings=many)
    with pytest.raises(SpecError, match="no shard 3 of 2"):
        lrf.Shard(3, 2)


def test_design_space_survives_its_file(space: DesignSpace, tmp_path: object) -> None:
    loaded = DesignSpace.load(space.save(tmp_path))  # type: ignore[arg-type]
    assert loaded == space


def test_design_space_is_the_same_again(
    trained: Trained, analysis: lrf.Analysis, space: DesignSpace
) -> None:
    again = lrf.explore(trained.model, trained.data, analysis, settings=SETTINGS)
    assert [c.ranks for c in again.candidates] == [c.ranks for c in space.candidates]
    np.testing.assert_allclose(
        [c.error for c in again.candidates], [c.error for c in space.candidates], atol=1e-9
    )
